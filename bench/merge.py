"""Joins results folders: of teammates, of notebooks that stopped at their time limit, of GPUs side by side.

A run is the same run wherever it was made, by its `run_id`, so joining is copying the folders under `runs/` and
building the CSVs again. Of several copies the one that ended for good is kept, else the first; two finished copies
whose scores differ are told, as that is a finding about reproducibility. Every run is copied beside its place
and renamed into it, so a merge that was stopped is completed by the same command.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.collect import collect, read_records
from bench.folder import MARKER, InputError, check_out, claim, run_folder
from bench.predictions import give_own, is_scored
from bench.record import FINAL, PREDICTIONS, read_json, write_json

SCORES = ("vqa_accuracy", "accuracy", "f1_macro")
SAME_SCORE = 1e-9
SIDE_FILES = ("model.json", "chosen_images.json", "examples")
HEAVY = ("weights", "memory.pickle")


@dataclass
class Found:
    """What a merge came upon: copied runs, copies that were not needed, and what a reader should know."""

    copied: int = 0
    duplicates: int = 0
    notes: list[str] = field(default_factory=list)


def merge(sources: Sequence[Path], out: Path, command: Sequence[str], *, weights: bool) -> tuple[list[Any], Found]:
    """Join `sources` in `out` and give all rows and what was found. InputError before anything is written."""
    records = {source.resolve(): _records(source) for source in sources}
    check_out(out)
    found = Found()
    with claim(out, command):
        if (out / "runs").is_dir():
            records = {out.resolve(): read_records(out), **records}
        _join_runs(records, out, found, weights=weights)
        _join_side_files([source for source in records if source != out.resolve()], out, found)
        merged = collect(out)
    machines = sorted({_machine(record) for record in merged})
    if len(machines) > 1:
        found.notes.append(f"times of {len(machines)} machines, not to be compared: {'; '.join(machines)}")
    return [dict(record["row"]) for record in merged], found


def _records(source: Path) -> list[Mapping[str, Any]]:
    if not (source / MARKER).is_file():
        raise InputError(f"merge {source}: no results folder (no {MARKER} in it); name the --out of a sweep")
    return read_records(source)


def _join_runs(records: Mapping[Path, Sequence[Mapping[str, Any]]], out: Path, found: Found, *, weights: bool) -> None:
    best: dict[str, tuple[Path, Mapping[str, Any]]] = {}
    for source, listed in records.items():
        for record in listed:
            known = best.setdefault(record["run_id"], (source, record))
            if known[1] is record:
                continue
            found.duplicates += 1
            if _final(record) and _final(known[1]):
                found.notes += _disagreement(known, (source, record))
            elif _final(record):
                best[record["run_id"]] = (source, record)
    for source, record in best.values():
        if source != out.resolve():
            _copy(source, record, out, leave_out=() if weights else HEAVY)
            found.copied += 1


def _final(record: Mapping[str, Any]) -> bool:
    return record["row"]["status"] in FINAL


def _disagreement(one: tuple[Path, Mapping[str, Any]], other: tuple[Path, Mapping[str, Any]]) -> list[str]:
    """A line for a score that two copies of one run differ in."""
    rows = one[1]["row"], other[1]["row"]
    for score in SCORES:
        values = [row.get(score) for row in rows]
        if None not in values and abs(values[0] - values[1]) > SAME_SCORE:
            what = f"{rows[0]['strategy']} (seed {rows[0]['seed']}, run {rows[0]['run_id']}): {score} is"
            where = [f"{value:.4f} in {copy[0].name}" for value, copy in zip(values, (one, other), strict=True)]
            return [f"{what} {' and '.join(where)}; kept the first"]
    return []


def _copy(source: Path, record: Mapping[str, Any], out: Path, leave_out: Sequence[str]) -> None:
    """Copy a run beside its place, then put it there in one step, with its predictions as a file of its own."""
    run_id = record["run_id"]
    target = run_folder(out, run_id)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        shutil.copytree(run_folder(source, run_id), draft / "run", ignore=shutil.ignore_patterns(*leave_out))
        if is_scored(record) and not (draft / "run" / PREDICTIONS).exists():
            give_own(source, run_id, draft / "run")
        if target.exists():
            target.rename(draft / "replaced")
        (draft / "run").rename(target)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _join_side_files(sources: Sequence[Path], out: Path, found: Found) -> None:
    cards: dict[str, Any] = {}
    for source in [*sources, out]:
        if (source / "strategies.json").is_file():
            cards = read_json(source / "strategies.json") | cards
    write_json(out / "strategies.json", cards)
    for name in SIDE_FILES:
        for source in sources:
            have, new = out / name, source / name
            if new.is_dir() and not have.exists():
                shutil.copytree(new, have)
            elif new.is_file() and not have.exists():
                shutil.copyfile(new, have)
            elif new.is_file() and new.read_bytes() != have.read_bytes():
                found.notes.append(
                    f"{name} of {source.name} differs; kept the first: these are runs of several settings"
                )


def _machine(record: Mapping[str, Any]) -> str:
    facts, row = record.get("environment", {}), record["row"]
    return str(row.get("gpu_name") or facts.get("processor") or row["device"])
