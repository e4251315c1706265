"""What a training step is made of, and when compiling has paid for itself: why a recipe is, or is not, quicker.

Nothing here knows a method: a recipe is compared with the baseline, or with the recipe that has one member less.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from report.frames.units import MISSING, code, three_digits, times

if TYPE_CHECKING:
    import pandas as pd

    from report.frames.compare import Comparison

PARTS: Final = {
    "forward": "forward_step_seconds",
    "backward": "backward_step_seconds",
    "optimizer": "optimizer_step_seconds",
    "data": "data_step_seconds",
}
# A member ends at a plus outside brackets; brackets hold quoted words and, at most, lists and tuples.
MEMBER: Final = re.compile(r"""(?:[^+()]|\((?:[^()'"]|'[^']*'|"[^"]*"|\([^()]*\))*\))+""")


def step_lines(comparison: Comparison) -> list[str]:
    """Lay out the parts of a step in ms and against the baseline's; empty where they were not measured."""
    entries, base = comparison.entries, comparison.baseline
    parts = {name: column for name, column in PARTS.items() if column in entries and entries[column].notna().any()}
    if not parts:
        return []
    rows = entries[(entries["kind"] != "control") & entries[list(parts.values())].notna().any(axis=1)]
    lines = ["### Parts of a training step", "", "In ms, and × baseline: where a recipe saves time, and where not.", ""]
    lines += [f"| recipe | {' | '.join(parts)} |", f"|---|{'---:|' * len(parts)}"]
    for row in rows.to_dict("records"):
        cells = [_cell(row[column], math.nan if base is None else base[column]) for column in parts.values()]
        lines.append(f"| {code(row['label'])} | {' | '.join(cells)} |")
    return [*lines, ""]


def _cell(seconds: float, base: float) -> str:
    if math.isnan(seconds):
        return MISSING
    return three_digits(1000 * seconds) + (f" ({times(seconds / base)})" if base > 0 else "")


def members(plan: str) -> tuple[str, ...]:
    """Split a plan into its members, sorted."""
    return tuple(sorted(MEMBER.findall(plan)))


def break_even_lines(comparison: Comparison) -> list[str]:
    """Say after how many epochs compiling has paid for itself, against the recipe with one member less."""
    found: dict[tuple[str, str], list[float]] = {}
    for run, sibling in _siblings(comparison.finished):
        found.setdefault((run["entry"], sibling["entry"]), []).append(_epochs(run, sibling))
    sentences = [
        f"- {code(label)} against {code(less)}: {_after(float(np.median(epochs)))}"
        for (label, less), epochs in found.items()
        if not np.isnan(epochs).any()
    ]
    return ["### When compiling has paid for itself", "", *sentences, ""] if sentences else []


def _siblings(runs: pd.DataFrame) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    """Pair every run that compiled with the run of its seed that lacks one member and compiled nothing."""
    plain = {
        (() if run["kind"] == "baseline" else members(run["plan"]), run["seed"]): run
        for run in runs[runs["compile_seconds"].isna()].to_dict("records")
    }
    pairs = []
    for run in runs[runs["compile_seconds"].notna()].to_dict("records"):
        plan = members(run["plan"])
        less = (plain.get((plan[:index] + plan[index + 1 :], run["seed"])) for index in range(len(plan)))
        pairs += [(run, other) for other in less if other]
    return pairs


def _epochs(run: dict[Any, Any], sibling: dict[Any, Any]) -> float:
    """Epochs until the extra one-off seconds are saved again; infinite when an epoch is not quicker."""
    once, each = _once(run) - _once(sibling), _epoch(sibling) - _epoch(run)
    if math.isnan(once + each):
        return math.nan
    return max(once, 0.0) / each if each > 0 else math.inf


def _once(run: dict[Any, Any]) -> float:
    return float(run["ttt_seconds"] - run["train_seconds"])


def _epoch(run: dict[Any, Any]) -> float:
    return float(run["train_samples"] / run["samples_per_second"])


def _after(epochs: float) -> str:
    if math.isinf(epochs):
        return "never; an epoch is not quicker"
    return f"after {three_digits(epochs)} epochs (extra one-off seconds over seconds saved per epoch)"
