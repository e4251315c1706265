"""Joins results folders: of teammates, of notebooks that stopped at their time limit, of GPUs side by side.

A run is the same run wherever it was made, by its `run_id`, so joining is copying the folders under `runs/` and
building the CSVs again. Of several copies the one that ended for good is kept, of those one that others did not
disturb, else the first; two finished copies whose scores differ are told, as that is a finding about reproducibility.
Every run is copied beside its place and renamed into it, so a merge that was stopped is completed by the same command.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from argparse import ArgumentParser, HelpFormatter, Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.commands.arguments import OneLineParser
from bench.records.collect import collect, read_records
from bench.records.files import put, sync_tree
from bench.records.json_files import read_json, write_json
from bench.records.predictions import give_own, is_scored
from bench.records.record import FINAL, PREDICTIONS
from bench.records.results_folder import (
    MARKER,
    InputError,
    check_output_folder,
    lock_folder,
    run_folder,
)
from bench.records.run_records import set_damaged_aside
from bench.sweep.run import report_results

SCORES = ("vqa_accuracy", "accuracy", "f1_macro")
SCORE_TOLERANCE = 1e-9
SIDECAR_FILES = ("model.json", "chosen_images.json", "examples")
LARGE_FILES = ("weights", "memory.pickle")


@dataclass
class MergeReport:
    """What a merge came upon: copied runs, copies that were not needed, and what a reader should know."""

    copied: int = 0
    duplicates: int = 0
    notes: list[str] = field(default_factory=list)


def make_merge_parser() -> ArgumentParser:
    """The parser of `merge`."""
    parser = OneLineParser(
        prog="run_matrix.py merge",
        description="Join results folders: of teammates, of notebooks, of GPUs side by side. The same run in several "
        "folders is recognised by its run_id; copies whose scores differ are told.",
        epilog="example: run_matrix.py merge runs/gpu0 runs/gpu1 teammate/runs --out runs/all",
        formatter_class=functools.partial(HelpFormatter, width=100),
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="results folders (--out of sweeps)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="where to join them; may be one of them")
    parser.add_argument("--no-weights", action="store_true", help="leave the weights of the runs out")
    return parser


def run_merge(options: Namespace, command: Sequence[str]) -> int:
    """Join folders, say what came of it, and show the table."""
    rows, report = merge(options.folders, options.out, command, weights=not options.no_weights)
    report_results(rows, options.out)
    copies = f", {report.duplicates} copies of runs that were there already" if report.duplicates else ""
    print(f"{len(rows)} runs in {options.out}: {report.copied} copied{copies}")
    for note in report.notes:
        print(f"note: {note}")
    return 0


def merge(
    sources: Sequence[Path], out: Path, command: Sequence[str], *, weights: bool
) -> tuple[list[Any], MergeReport]:
    """Join `sources` in `out` and give all rows and what was found. InputError before anything is written."""
    records = {source.resolve(): _records(source) for source in sources}
    check_output_folder(out)
    report = MergeReport()
    with lock_folder(out, command):
        report.notes += set_damaged_aside(out)
        if (out / "runs").is_dir():
            records = {out.resolve(): read_records(out), **records}
        _merge_runs(records, out, report, weights=weights)
        _merge_sidecars([source for source in records if source != out.resolve()], out, report)
        merged = collect(out)
    machines = sorted({_machine(record) for record in merged})
    if len(machines) > 1:
        report.notes.append(f"times of {len(machines)} machines, not to be compared: {'; '.join(machines)}")
    return [dict(record["row"]) for record in merged], report


def _records(source: Path) -> list[Mapping[str, Any]]:
    if not (source / MARKER).is_file():
        raise InputError(f"merge {source}: no results folder (no {MARKER} in it); name the --out of a sweep")
    return read_records(source)


def _merge_runs(
    records: Mapping[Path, Sequence[Mapping[str, Any]]], out: Path, report: MergeReport, *, weights: bool
) -> None:
    best: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for source, listed in records.items():
        for record in listed:
            known = best.setdefault(record["run_id"], (source, record))
            if known[1] is record:
                continue
            report.duplicates += 1
            better = _rank(record) > _rank(known[1])
            if _is_final(record) and _is_final(known[1]):
                kept = "the one that others did not disturb" if better else "the first"
                report.notes += _score_mismatch(known, (source, record), kept)
            if better:
                best[record["run_id"]] = (source, record)
    for source, record in best.values():
        if source != out.resolve():
            _copy(source, record, out, () if weights else LARGE_FILES, report.notes)
            report.copied += 1


def _is_final(record: Mapping[str, Any]) -> bool:
    return record["row"]["status"] in FINAL


def _rank(record: Mapping[str, Any]) -> tuple[bool, bool]:
    """The higher, the better a copy of a run."""
    return _is_final(record), not record["row"].get("disturbed")


def _score_mismatch(one: tuple[Path, Mapping[str, Any]], other: tuple[Path, Mapping[str, Any]], kept: str) -> list[str]:
    """A line for a score that two copies of one run differ in."""
    rows = one[1]["row"], other[1]["row"]
    for score in SCORES:
        values = [row.get(score) for row in rows]
        if None not in values and abs(values[0] - values[1]) > SCORE_TOLERANCE:
            what = f"{rows[0]['strategy']} (seed {rows[0]['seed']}, run {rows[0]['run_id']}): {score} is"
            where = [f"{value:.4f} in {copy[0].name}" for value, copy in zip(values, (one, other), strict=True)]
            return [f"{what} {' and '.join(where)}; kept {kept}"]
    return []


def _but_links(leave_out: Sequence[str], notes: list[str]) -> Callable[[str, list[str]], list[str]]:
    """For copytree: leaves these names out, and links, which may lead anywhere; adds a note for each link."""

    def ignore(folder: str, names: list[str]) -> list[str]:
        links = [name for name in names if (Path(folder) / name).is_symlink()]
        notes.extend(f"{Path(folder) / name}: a link, left out" for name in links)
        return [*links, *(name for name in names if name in leave_out)]

    return ignore


def _copy(source: Path, record: Mapping[str, Any], out: Path, leave_out: Sequence[str], notes: list[str]) -> None:
    """Copy a run beside its place, then put it there in one step, with its predictions as a file of its own.

    Links in it are left out, with a note for each.
    """
    run_id = record["run_id"]
    target = run_folder(out, run_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        shutil.copytree(run_folder(source, run_id), draft / "run", ignore=_but_links(leave_out, notes))
        if is_scored(record) and not (draft / "run" / PREDICTIONS).exists():
            give_own(source, run_id, draft / "run")
        sync_tree(draft / "run")
        if target.exists():
            target.rename(draft / "replaced")
        put(draft / "run", target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _merge_sidecars(sources: Sequence[Path], out: Path, report: MergeReport) -> None:
    cards: dict[str, Any] = {}
    for source in [*sources, out]:
        if (source / "strategies.json").is_file():
            cards = read_json(source / "strategies.json") | cards
    write_json(out / "strategies.json", cards)
    for name in SIDECAR_FILES:
        for source in sources:
            have, new = out / name, source / name
            if new.is_symlink():
                report.notes.append(f"{new}: a link, left out")
            elif new.is_dir() and not have.exists():
                shutil.copytree(new, have, ignore=_but_links((), report.notes))
            elif new.is_file() and not have.exists():
                shutil.copyfile(new, have)
            elif new.is_file() and new.read_bytes() != have.read_bytes():
                report.notes.append(
                    f"{name} of {source.name} differs; kept the first: these are runs of several settings"
                )


def _machine(record: Mapping[str, Any]) -> str:
    facts, row = record.get("environment", {}), record["row"]
    return str(row.get("gpu_name") or facts.get("processor") or row["device"])
