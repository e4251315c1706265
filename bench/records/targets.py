"""Which baseline a run answers to, and how long it took to reach that baseline's quality.

Pure functions of records, so that the columns can be rebuilt at any time and change when a baseline is added later.
Reaching the target is read off the evaluations on the tune set, so its resolution is their distance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from bench.records.record import TARGET_SHARE

Row = Mapping[str, Any]
Record = Mapping[str, Any]

COMPARISON_KEY: Final = ("task", "model", "dataset", "setting", "seed", "batch_size", "device")
TARGET_METRIC: Final = ("tune", "accuracy")
RAN_TO_END: Final = frozenset({"ok", "diverged"})  # had its chance; one that was stopped might have got there


def comparison_key(row: Row) -> tuple[Any, ...]:
    """What a run and its baseline have in common."""
    return tuple(row.get(column) for column in COMPARISON_KEY)


def baselines(rows: Iterable[Row]) -> dict[tuple[Any, ...], Row]:
    """The full fine-tune that runs are compared with, by what they have in common; the last one if there are several.

    One pass, so that a sweep of thousands of runs is printed as quickly per run as a small one.
    """
    return {comparison_key(row): row for row in rows if row.get("kind") == "baseline"}


def tune_curve(record: Record) -> list[tuple[int, float, float]]:
    """Steps, training seconds and value of every evaluation on the tune set, in order."""
    points = [
        (step, seconds, value) for step, seconds, *what, value in record["history"] if tuple(what) == TARGET_METRIC
    ]
    return sorted(points)


def time_to_target(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Columns `time_to_target_seconds` and `steps_to_target` by run id.

    The target is TARGET_SHARE of the baseline's last value on the tune set. A finished run that never got there is at
    infinity; a run without a baseline or without evaluations on the tune set is left out.
    """
    rows = baselines(record["row"] for record in records if record["row"]["status"] == "ok")
    finals = {record["run_id"]: tune_curve(record)[-1][2] for record in records if tune_curve(record)}
    found = {}
    for record in records:
        row, points = record["row"], tune_curve(record)
        target = finals.get(rows.get(comparison_key(row), {}).get("run_id", ""))
        if target is None or not points:
            continue
        reached = [(step, seconds) for step, seconds, value in points if value >= TARGET_SHARE * target]
        if reached:
            setup = row.get("setup_seconds") or 0.0
            found[record["run_id"]] = _columns(reached[0][1] + setup, reached[0][0])
        elif row["status"] in RAN_TO_END:
            found[record["run_id"]] = _columns(math.inf, math.inf)
    return found


def _columns(seconds: float, steps: float) -> dict[str, float]:
    return {"time_to_target_seconds": seconds, "steps_to_target": steps}
