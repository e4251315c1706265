"""`run_matrix.py export RUN`: finds a finished run and has a child process write its model as a folder."""

from __future__ import annotations

import functools
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.commands.arguments import OneLineParser
from bench.processes.scratch import scratch_folder
from bench.processes.start import run_child
from bench.records.collect import read_records
from bench.records.json_files import write_json
from bench.records.results_folder import InputError, run_folder
from bench.records.run_records import RECORD_FILE
from strategies.saving.manifest import MANIFEST_FILE

RESULTS: Final = ("results/local/*", "results/*")


def make_export_parser() -> ArgumentParser:
    """The parser of `export`."""
    parser = OneLineParser(
        prog="run_matrix.py export",
        description="Write the model of a finished run as a folder to use and to hand in: weights (safetensors, "
        "adapters merged), processor, model card with the run's figures, manifest with hashes.",
        epilog="examples:\n  run_matrix.py export lora --in results/local/embedded --out exported/lora\n"
        "  run_matrix.py export 3f9c02a1b7de --in runs/all --out exported/best --data data/vqa2",
        formatter_class=functools.partial(RawDescriptionHelpFormatter, width=100),
    )
    add = parser.add_argument
    add("run", metavar="RUN", help="a run_id, its beginning, the run's folder, or a recipe that ran with one seed")
    add("--in", dest="source", type=Path, metavar="DIR", help="results folder (default: those under results/)")
    add("--out", required=True, type=Path, metavar="DIR", help="folder to write; one that export wrote is replaced")
    add("--format", choices=("merged", "peft"), default="merged", help="adapters merged, or apart in PEFT's own format")
    add("--data", metavar="DIR", help="where the data lies now, if not where the run found it")
    add("--vision", metavar="CHECKPOINT", help="the same for the vision tower")
    add("--text", metavar="CHECKPOINT", help="the same for the text tower")
    return parser


def run_export(options: Namespace, _: Sequence[str]) -> int:
    """Find the run and have a child process export it, as the parent never loads torch."""
    source, row = find_run(options.run, options.source)
    out: Path = options.out
    if out.is_file() or (out.is_dir() and any(out.iterdir()) and not (out / MANIFEST_FILE).exists()):
        raise InputError(f"--out {out}: holds files that export did not write; name an empty or a new folder")
    overrides = {name: value for name in ("data", "vision", "text") if (value := getattr(options, name)) is not None}
    request = {
        "source": str(source), "run_id": row["run_id"], "strategy": row["strategy"], "out": str(out.absolute()),
        "overrides": overrides, "format": options.format,
    }  # fmt: skip
    with scratch_folder() as scratch:
        file = scratch / "request.json"
        write_json(file, request)
        return run_child("bench.commands.write_model", [file])


def find_run(name: str, source: Path | None) -> tuple[Path, Mapping[str, Any]]:
    """The results folder and row of one run that ended ok; InputError where there is none, or more than one.

    name: a recipe, a run_id or its beginning; or the run's folder, which tells both.
    """
    path = Path(name)
    if (path / RECORD_FILE).is_file():
        name, source = path.resolve().name, path.resolve().parent.parent
    folders = [source] if source else [p for pattern in RESULTS for p in sorted(Path().glob(pattern)) if p.is_dir()]
    rows = [(folder, record["row"]) for folder in folders for record in read_records(folder)]
    matching = [found for found in rows if name in {found[1]["run_id"], found[1]["strategy"]}]
    matching = matching or [found for found in rows if found[1]["run_id"].startswith(name)]
    finished = [found for found in matching if found[1]["status"] == "ok" and found[1]["kind"] != "tuning"]
    searched = str(source) if source else f"the {len(folders)} folders under results/"
    if not matching:
        raise InputError(
            f"export {name}: no such run or recipe in {searched}; runs.csv there lists them, --in names another"
        )
    if not finished:
        raise InputError(f"export {name}: ended {matching[0][1]['status']}, so it left no weights")
    if len({row["run_id"] for _, row in finished}) > 1:
        ids = ", ".join(f"{row['run_id']} (seed {row['seed']})" for _, row in finished)
        raise InputError(f"export {name}: {len(finished)} runs fit, name one of {ids}")
    with_weights = [found for found in finished if (run_folder(found[0], found[1]["run_id"]) / "weights").is_dir()]
    if not with_weights:
        raise InputError(f"export {name}: its weights are not in {searched}; run it again with --force, or name --in")
    return with_weights[0]
