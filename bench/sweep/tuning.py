"""Equal tuning: every recipe tries as many learning rates as any other, and all that is spent counts.

`--tune N` runs each recipe whole, with the first seed, at N rates: its default and a logarithmic grid around it. The
one that does best on the tune set at its end is the recipe's run, and its rate is that of the other seeds; what is left
are records of kind `tuning`, which no comparison shows. A second sweep with another N only adds what is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench.records.results_folder import read_record
from bench.records.spec import RunSpec

FACTOR: Final = 10**0.5  # between neighbouring rates
METRIC: Final = ["tune", "accuracy"]
Trial = tuple[RunSpec, float | None]


def grid(number: int) -> list[float]:
    """So many factors around 1, from the lowest: 1 is among them, and the rate above it before the one below.

    >>> [round(factor, 2) for factor in grid(4)]
    [0.32, 1.0, 3.16, 10.0]
    """
    lowest = -((number - 1) // 2)
    return [FACTOR**power for power in range(lowest, lowest + number)]


def make_trials(spec: RunSpec, number: int) -> list[RunSpec]:
    """The runs that choose a recipe's rate, from the lowest; the one at the default is `spec` but for its kind."""
    part, rate = tuned_rate(spec)
    rates = [rate if factor == 1 else float(f"{factor * rate:.3g}") for factor in grid(number)]
    changes: list[dict[str, Any]] = [{part: rate} for rate in rates]
    return [replace(spec, kind="tuning", **change) for change in changes]


def tuned_rate(spec: RunSpec) -> tuple[str, float]:
    """The field that is tuned and its value: `lr`, or the head's rate where nothing else trains."""
    return ("head_lr", spec.head_lr) if spec.lr is None else ("lr", spec.lr)


def score(record: Mapping[str, Any] | None) -> float | None:
    """The last accuracy on the tune set; None for a run that did not end well, or was not run."""
    if record is None or record["row"]["status"] != "ok":
        return None
    found = [point[4] for point in record["history"] if list(point[2:4]) == METRIC]
    return found[-1] if found else None


def best_trial(scored_trials: Sequence[Trial], default: RunSpec) -> RunSpec:
    """The trial with the best score; of equal ones the default or the lowest; the default if none has one."""
    scored = [(value, run.run_id == default.run_id, run) for run, value in scored_trials if value is not None]
    return max(scored, key=lambda entry: entry[:2], default=(None, True, default))[2]


def spent_seconds(rows: Sequence[Mapping[str, Any]]) -> float | None:
    """TTT of all trials of a recipe together; None where others disturbed one."""
    disturbed = any(row.get("disturbed") for row in rows)
    return None if disturbed else sum(row.get("ttt_seconds", 0.0) for row in rows)


def tuning_columns(scored_trials: Sequence[Trial], seconds: float | None) -> dict[str, Any]:
    """Columns of every run of a tuned recipe: what was tried, how well it did, and the seconds of training it took.

    seconds: None where others disturbed a trial.
    """
    scores = [value for _, value in scored_trials if value is not None]
    listed = [
        f"{tuned_rate(run)[1]:g}={'failed' if value is None else format(value, '.4f')}" for run, value in scored_trials
    ]
    best = {"tuning_best": max(scores), "tuning_spread": max(scores) - min(scores)} if scores else {}
    return {"tuned_rates": " ".join(listed), "tuning_seconds": seconds, **best}


def in_tuned_setting(specs: Sequence[RunSpec], number: int) -> list[RunSpec]:
    """The same runs in a setting of their own: what was tuned is not compared with what was not."""
    return [replace(spec, setting=f"{spec.setting}, best of {number} rates") for spec in specs]


def tunable(specs: Sequence[RunSpec]) -> list[RunSpec]:
    """The first seed's run of every recipe that can run; controls are not tuned."""
    return [spec for spec in specs if spec.seed == specs[0].seed and spec.kind != "control" and not spec.refusal]


def trial_runs(specs: Sequence[RunSpec], number: int) -> list[RunSpec]:
    """All trials of a sweep, in the order in which they are run."""
    return [trial for spec in tunable(specs) for trial in make_trials(spec, number)]


def tune(specs: Sequence[RunSpec], number: int, out: Path, run: Callable[[Sequence[RunSpec]], None]) -> list[RunSpec]:
    """Run every recipe's trials and give all runs at the chosen rates; controls have those of their plan.

    run: runs specifications into `out`, finished ones left out.
    """
    groups = {spec.plan: (spec, make_trials(spec, number)) for spec in tunable(specs)}
    print(f"Choosing each recipe's rate among {number}, on the tune set, with seed {specs[0].seed}:")
    run(trial_runs(specs, number))
    chosen: dict[str, dict[str, Any]] = {}
    columns_of: dict[str, dict[str, Any]] = {}
    for plan, (default, trial_specs) in groups.items():
        records = [read_record(out, trial.run_id) for trial in trial_specs]
        results = list(zip(trial_specs, map(score, records), strict=True))
        spent = spent_seconds([record["row"] for record in records if record])
        best, columns = best_trial(results, default), tuning_columns(results, spent)
        print(f"{default.strategy}: {tuned_rate(best)[0]} {tuned_rate(best)[1]:g} of {columns['tuned_rates']}")
        chosen[plan] = {"lr": best.lr, "head_lr": best.head_lr}
        columns_of[plan] = columns
    print("Now what is left, at these rates:")
    tuned = [replace(spec, **chosen.get(spec.plan, {})) for spec in specs]
    return [spec if spec.kind == "control" else replace(spec, tuning=columns_of.get(spec.plan)) for spec in tuned]
