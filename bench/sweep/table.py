"""The comparison table printed at the end of a sweep, and the planned matrix of --dry-run."""

from __future__ import annotations

import statistics
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from bench.records.spec import RunSpec
from bench.records.targets import baselines, comparison_key
from bench.sweep.progress import duration

if TYPE_CHECKING:
    from rich.console import Console

Row = Mapping[str, Any]
MIN_REPEATS: Final = 3  # of a time, from which on it may be a headline
SCORES = {
    "VQA acc.": "vqa_accuracy",
    "accuracy": "accuracy",
    "F1": "f1_macro",
    "precision": "precision_macro",
    "recall": "recall_macro",
}


def percent(value: float | None) -> str:
    """A share as percent with one place."""
    return "" if value is None else f"{100 * value:.1f}"


def count(value: float | None) -> str:
    """Parameters, in thousands or millions where there are as many."""
    if value is None:
        return ""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {letter}"
    return f"{value:g}"


def timed(row: Row) -> Row:
    """What may be compared of a run's time: nothing where others disturbed it."""
    return {} if row.get("disturbed") else row


def with_ratio(text: str, value: float | None, reference: float | None) -> str:
    """A figure followed by its ratio to the baseline's."""
    if value is None:
        return ""
    return text if not reference else f"{text} ({value / reference:.2f}×)"


def result_cells(row: Row, reference: Row) -> list[str]:
    """One row of the comparison table; `reference`: the full fine-tune it is compared with, or nothing."""
    ttt, peak = row.get("ttt_seconds"), row.get("peak_allocated_bytes")
    status = row["status"] if row["status"] == "ok" else f"{row['status']}: {row.get('reason', '')}"
    status += ", disturbed" if row.get("disturbed") else ""
    return [
        row["strategy"],
        *(percent(row.get(column)) for column in SCORES.values()),
        with_ratio(f"{ttt or 0:.1f} s", ttt, timed(reference).get("ttt_seconds") if timed(row) else None),
        with_ratio(f"{(peak or 0) / 2**20:.1f} MiB", peak, reference.get("peak_allocated_bytes")),
        count(row.get("trainable_parameters")),
        str(row["seed"]),
        status,
    ]


def print_results(rows: Sequence[Row]) -> None:
    """Print the comparison; on a terminal in colour, elsewhere as plain text of full width."""
    columns = ["strategy", *SCORES, "TTT (× full)", "peak memory (× full)", "trainable", "seed", "status"]
    references = baselines(rows)
    cells = [result_cells(row, references.get(comparison_key(row), {})) for row in rows]
    lines = [dict(zip(columns, line, strict=True)) for line in cells]
    if len({row["seed"] for row in rows}) == 1:
        columns.remove("seed")
    columns = [column for column in columns if any(line[column] for line in lines)]
    print_table(columns, [[line[column] for column in columns] for line in lines], right=range(1, len(columns) - 1))
    print("Scores in percent; F1, precision and recall are macro means over the whole evaluation set.")
    if startups := [row["startup_seconds"] for row in rows if "startup_seconds" in row]:
        print(f"Fixed cost of a run, process start to first step: median {statistics.median(startups):.1f} s.")
    if words := few_repeats(rows):
        print(f"{words}: small differences of time may be chance; --seeds 0,1,2 runs each recipe three times.")
    print("TTT: first batch to last update, with compiling and the recipe's own set-up. Peak: allocator, training.")


def few_repeats(rows: Sequence[Row]) -> str:
    """Says so where some recipe's time is of fewer runs than MIN_REPEATS, those that were disturbed not counted."""
    counts = Counter(row["plan"] for row in rows if row.get("kind") != "control" and timed(row).get("ttt_seconds"))
    fewest, most = min(counts.values(), default=MIN_REPEATS), max(counts.values(), default=0)
    if fewest >= MIN_REPEATS:
        return ""
    return f"{'One run' if fewest == 1 else 'Two runs'} {'each' if fewest == most else 'of some recipes'}"


def print_matrix(specs: Sequence[RunSpec], done: Collection[str]) -> None:
    """The planned runs, with what refuses them and what is finished already."""
    rows = []
    for spec in specs:
        state = "finished" if spec.run_id in done else "to run"
        if spec.refusal:
            state = f"{spec.refusal['status']}: {spec.refusal['reason']}"
        rate = "" if spec.lr is None else f"{spec.lr:g}"
        length = f"{spec.max_steps} steps" if spec.max_steps else f"{spec.epochs:g} epochs"
        rows.append(
            [
                spec.run_id,
                spec.strategy,
                spec.plan,
                str(spec.seed),
                rate,
                f"{spec.head_lr:g}",
                str(spec.batch_size),
                length,
                state,
            ]
        )
    print_table(["run", "strategy", "plan", "seed", "lr", "head lr", "batch", "length", "state"], rows)


def outcome(row: Mapping[str, Any]) -> str:
    """One line about a run that ended."""
    if row["status"] != "ok":
        return f"{row['status']} in {row.get('section', 'planning')}: {row.get('reason', '')}"
    scores = f"accuracy {100 * row['accuracy']:.1f} %  TTT {duration(row['ttt_seconds'])}"
    peak = row.get("peak_allocated_bytes")
    if "compile_seconds" in row:
        scores += f" (compiling {row['compile_seconds']:.0f} s)"
    scores += f"  peak {peak / 2**20:.0f} MiB" if peak else ""
    return scores + (f"  disturbed: {row['disturbed']}" if row.get("disturbed") else "")


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
    """Print a table; off a terminal nothing is cut or wrapped."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escaped, row))
    console().print(table, highlight=False)


def escaped(text: str) -> str:
    """Text in which rich sees no markup."""
    from rich.markup import escape

    return escape(text)


def console() -> Console:
    """Standard output, wide enough off a terminal that logs keep whole lines."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=240)
