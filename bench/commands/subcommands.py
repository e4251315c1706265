"""The commands that work on finished runs: `compare`, `merge` and `export`, each with its own few options."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from argparse import ArgumentParser, HelpFormatter, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench.commands.arguments import USAGE, OneLineParser, positive_float
from bench.commands.compare import MEASURES, THRESHOLDS, compare
from bench.commands.merge import merge
from bench.records.collect import read_records
from bench.records.record import write_json
from bench.records.results_folder import RECORD_FILE, InputError, run_folder
from bench.sweep.run import child_environment, show
from strategies.saving.manifest import MANIFEST_FILE

RESULTS: Final = ("results/local/*", "results/*")


def make_compare_parser() -> ArgumentParser:
    """The parser of `compare`: two sweeps and what counts as a difference."""
    parser = OneLineParser(
        prog="run_matrix.py compare",
        usage="run_matrix.py compare OLD NEW [--time PERCENT] [--memory PERCENT] [--quality POINTS]",
        description="Find what changed between two sweeps: slower and faster, more and less memory, worse and better, "
        "other statuses, lost runs. Runs are joined by run_id, else by recipe, setting and seed; seeds are summed up "
        "by their median.",
        epilog="exit status: 0 no difference, 1 a difference beyond the thresholds or a lost run, 2 bad input",
        formatter_class=functools.partial(HelpFormatter, width=100),
    )
    parser.add_argument("old", type=Path, metavar="OLD", help="a results folder or its runs.csv")
    parser.add_argument("new", type=Path, metavar="NEW", help="the same, later")
    units = {"time": "PERCENT", "memory": "PERCENT", "quality": "POINTS"}
    for name, unit in units.items():
        limit = THRESHOLDS[name]
        how = f"largest change of {name} that is no difference, in {unit.lower()} (default: {limit:g})"
        parser.add_argument(f"--{name}", type=positive_float, default=limit, metavar=unit, help=how)
    return parser


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


def run_compare(options: Namespace, _: Sequence[str]) -> int:
    """What changed between two sweeps."""
    return compare(options.old, options.new, {measure.name: getattr(options, measure.name) for measure in MEASURES})


def run_merge(options: Namespace, command: Sequence[str]) -> int:
    """Join folders, say what came of it, and show the table."""
    rows, found = merge(options.folders, options.out, command, weights=not options.no_weights)
    show(rows, options.out)
    copies = f", {found.duplicates} copies of runs that were there already" if found.duplicates else ""
    print(f"{len(rows)} runs in {options.out}: {found.copied} copied{copies}")
    for note in found.notes:
        print(f"note: {note}")
    return 0


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
    with tempfile.TemporaryDirectory(prefix="tunematrix-") as scratch:
        file = Path(scratch) / "request.json"
        write_json(file, request)
        command = [sys.executable, "-m", "bench.commands.export", str(file)]
        return subprocess.run(command, env=child_environment({}), check=False).returncode


def find_run(wanted: str, source: Path | None) -> tuple[Path, Mapping[str, Any]]:
    """The results folder and row of one run that ended ok; InputError where there is none, or more than one.

    wanted: a recipe, a run_id or its beginning; or the run's folder, which tells both.
    """
    place = Path(wanted)
    if (place / RECORD_FILE).is_file():
        wanted, source = place.resolve().name, place.resolve().parent.parent
    folders = [source] if source else [p for pattern in RESULTS for p in sorted(Path().glob(pattern)) if p.is_dir()]
    rows = [(folder, record["row"]) for folder in folders for record in read_records(folder)]
    same = [found for found in rows if wanted in {found[1]["run_id"], found[1]["strategy"]}]
    same = same or [found for found in rows if found[1]["run_id"].startswith(wanted)]
    ended = [found for found in same if found[1]["status"] == "ok" and found[1]["kind"] != "tuning"]
    places = str(source) if source else f"the {len(folders)} folders under results/"
    if not same:
        raise InputError(
            f"export {wanted}: no such run or recipe in {places}; runs.csv there lists them, --in names another"
        )
    if not ended:
        raise InputError(f"export {wanted}: ended {same[0][1]['status']}, so it left no weights")
    if len({row["run_id"] for _, row in ended}) > 1:
        ids = ", ".join(f"{row['run_id']} (seed {row['seed']})" for _, row in ended)
        raise InputError(f"export {wanted}: {len(ended)} runs fit, name one of {ids}")
    with_weights = [found for found in ended if (run_folder(found[0], found[1]["run_id"]) / "weights").is_dir()]
    if not with_weights:
        raise InputError(f"export {wanted}: its weights are not in {places}; run it again with --force, or name --in")
    return with_weights[0]


COMMANDS: Final[dict[str, tuple[Callable[[], ArgumentParser], Callable[[Namespace, Sequence[str]], int]]]] = {
    "compare": (make_compare_parser, run_compare),
    "merge": (make_merge_parser, run_merge),
    "export": (make_export_parser, run_export),
}


def run_command(name: str, words: Sequence[str]) -> int:
    """Run one of the commands; 2 and one line for bad input."""
    make, work = COMMANDS[name]
    options = make().parse_args(words)
    try:
        return work(options, [name, *words])
    except (ValueError, OSError) as error:
        print(f"run_matrix.py: {error}", file=sys.stderr)
        return USAGE
