"""`run_matrix.py compare OLD NEW`: what changed between two sweeps, in both directions.

A run that became twice as fast deserves the same look as one that became twice as slow: it may have stopped doing its
work. Runs are joined one to one, seed by seed, and only then summed up per recipe: a mean over different seeds would
find differences that are not there. Standard library only: comparing needs neither torch nor pandas.
"""

from __future__ import annotations

import csv
import functools
import math
import statistics
from argparse import ArgumentParser, HelpFormatter, Namespace
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.commands.arguments import OneLineParser, positive_float
from bench.records.results_folder import InputError
from bench.sweep.table import print_table

Row = Mapping[str, str]
Pair = tuple[Row, Row]

RECIPE_COLUMNS: Final = ("kind", "plan", "task", "model", "dataset", "setting", "batch_size", "device")
REQUIRED_COLUMNS: Final = ("run_id", "strategy", "plan", "seed", "status")
ENVIRONMENT_COLUMNS: Final = {
    "environment_hash": "versions or machine",
    "gpu_name": "GPU",
    "num_threads": "number of threads",
}


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One column that is compared: the words for more and less of it, and how a change is written."""

    name: str
    columns: tuple[str, ...]  # the first that both rows have
    more: str
    less: str
    relative: bool
    of_time: bool = False  # runs that others disturbed have none

    def change(self, pairs: Sequence[Pair]) -> float:
        """Median over the pairs of log ratio, or of difference; NaN where it was not measured, or only disturbed."""
        if self.of_time:
            pairs = [pair for pair in pairs if not is_disturbed(pair)]
        changes = [change for old, new in pairs if not math.isnan(change := self._change(old, new))]
        return statistics.median(changes) if changes else math.nan

    def _change(self, old: Row, new: Row) -> float:
        for column in self.columns:
            before, after = number(old, column), number(new, column)
            if self.relative and before > 0 and after > 0:
                return math.log(after / before)
            if not self.relative and not math.isnan(after - before):
                return after - before
        return math.nan

    def formatted(self, change: float) -> str:
        """The change as people read it; nothing where it was not measured."""
        if math.isnan(change):
            return ""
        return f"{math.exp(change):.2f}×" if self.relative else f"{100 * change:+.1f}"

    def limit(self, threshold: float) -> float:
        """The largest change that is not a difference; `threshold` in percent or points."""
        return math.log1p(threshold / 100) if self.relative else threshold / 100


MEASURES: Final = (
    Measure(name="time", columns=("ttt_seconds",), more="slower", less="faster", relative=True, of_time=True),
    Measure(name="memory", columns=("peak_allocated_bytes",), more="more memory", less="less memory", relative=True),
    Measure(name="quality", columns=("vqa_accuracy", "accuracy"), more="better", less="worse", relative=False),
)
THRESHOLDS: Final = {"time": 15.0, "memory": 5.0, "quality": 1.0}  # percent, percent, points


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


def is_disturbed(pair: Pair) -> bool:
    """Whether others disturbed one of the two runs, so that their times say nothing of each other."""
    return any(row.get("disturbed") for row in pair)


def number(row: Row, column: str) -> float:
    """A cell as a number; NaN when it is empty."""
    text = row.get(column) or "nan"
    try:
        return float(text)
    except ValueError as error:
        raise InputError(f"compare: run {row['run_id']}, column {column}: {text!r} is not a number") from error


def read_runs(path: Path) -> list[Row]:
    """Rows of a runs.csv, or of the one in a folder."""
    file = path / "runs.csv" if path.is_dir() else path
    try:
        with file.open(encoding="utf-8", newline="") as opened:
            reader = csv.DictReader(opened)
            rows: list[Row] = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"compare: {file} cannot be read ({error}); give a results folder or its runs.csv") from error
    if lost := [column for column in REQUIRED_COLUMNS if column not in (reader.fieldnames or ())]:
        raise InputError(f"compare: {file} has no column {', '.join(lost)}; give a results folder or its runs.csv")
    if not rows or any(None in row or None in row.values() for row in rows):
        raise InputError(f"compare: {file} has {'half-written rows' if rows else 'no rows'}; run its sweep again")
    return [row for row in rows if row.get("kind") != "tuning"]


def recipe_key(row: Row) -> tuple[str, ...]:
    """What the seeds of one recipe share; a control's plan is that of its baseline, so its name counts."""
    name = row["strategy"] if row.get("kind") == "control" else row["plan"]
    return (name, *(row.get(column, "") for column in RECIPE_COLUMNS if column != "plan"))


def join(old: Sequence[Row], new: Sequence[Row]) -> tuple[list[Pair], list[Row], list[Row]]:
    """Pair the runs by run_id, the rest by recipe and seed; also what is only in `old` and only in `new`."""
    by_id = {row["run_id"]: row for row in new}
    pairs = [(row, by_id.pop(row["run_id"])) for row in old if row["run_id"] in by_id]
    paired = {row["run_id"] for row, _ in pairs}
    unmatched: dict[tuple[tuple[str, ...], str], list[Row]] = {}
    for row in by_id.values():
        unmatched.setdefault((recipe_key(row), row["seed"]), []).append(row)
    lost = []
    for row in old:
        if row["run_id"] not in paired:
            found = unmatched.get((recipe_key(row), row["seed"]))
            if found:
                pairs.append((row, found.pop(0)))
            else:
                lost.append(row)
    return pairs, lost, [row for rows in unmatched.values() for row in rows]


def group_by_recipe(pairs: Iterable[Pair]) -> dict[tuple[str, ...], list[Pair]]:
    """Pairs by recipe, in the order of the new sweep's first mention."""
    groups: dict[tuple[str, ...], list[Pair]] = {}
    for pair in pairs:
        groups.setdefault(recipe_key(pair[1]), []).append(pair)
    return groups


def differences(pairs: Sequence[Pair], thresholds: Mapping[str, float]) -> tuple[list[str], list[str]]:
    """Cells of one recipe's row, by measure, and the words for what is beyond its threshold."""
    finished = [pair for pair in pairs if {row["status"] for row in pair} == {"ok"}]
    cells, found = [], []
    for measure in MEASURES:
        change = measure.change(finished)
        cells.append(measure.formatted(change))
        if abs(change) > measure.limit(thresholds[measure.name]) + 1e-12:
            found.append(measure.more if change > 0 else measure.less)
    changed = [f"{old['status']} → {new['status']}" for old, new in pairs if old["status"] != new["status"]]
    return cells, [*found, *dict.fromkeys(changed)]


def compare(old: Path, new: Path, thresholds: Mapping[str, float]) -> int:
    """Print what changed; the exit status: 0 nothing beyond the thresholds and no run lost, else 1.

    InputError for files that are not a sweep's, or have no run in common.
    """
    pairs, lost, added = join(read_runs(old), read_runs(new))
    if not pairs:
        raise InputError(f"compare: no run of {old} has a counterpart in {new}: other recipes, seeds, data or device")
    lines, changed = [], []
    for rows in group_by_recipe(pairs).values():
        cells, found = differences(rows, thresholds)
        name = rows[0][1]["strategy"]
        lines.append([name, str(len(rows)), *cells, ", ".join(found)])
        changed += [f"{name} ({', '.join(found)})"] if found else []
    columns = ["recipe", "runs", "time (new / old)", "memory (new / old)", "quality (points)", "beyond the thresholds"]
    print_table(columns, lines, right=range(1, 5))
    for text, single in (("old", lost), ("new", added)):
        if single:
            print(f"only in {text}: " + ", ".join(f"{row['strategy']} (seed {row['seed']})" for row in single))
    if disturbed := [new for old, new in pairs if is_disturbed((old, new))]:
        named = ", ".join(f"{row['strategy']} (seed {row['seed']})" for row in disturbed)
        print(f"times not compared, as others disturbed the old or the new run: {named}")
    environment_changes = [
        word
        for column, word in ENVIRONMENT_COLUMNS.items()
        if any(a.get(column, "") != b.get(column, "") for a, b in pairs)
    ]
    if environment_changes:
        print(f"differs around the runs: {', '.join(environment_changes)}; times may differ for that alone")
    changed += [f"{len(lost)} runs are gone"] if lost else []
    time, memory, quality = (f"{thresholds[measure.name]:g}" for measure in MEASURES)
    limits = f"time ±{time} %, memory ±{memory} %, quality ±{quality} points; medians over seeds"
    print(f"{'; '.join(changed) or 'no difference'} [{limits}]")
    return int(bool(changed))


def run_compare(options: Namespace, _: Sequence[str]) -> int:
    """What changed between two sweeps."""
    return compare(options.old, options.new, {measure.name: getattr(options, measure.name) for measure in MEASURES})
