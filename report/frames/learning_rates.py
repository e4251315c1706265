"""What an equal budget of learning rates found for each recipe, and what it cost.

A recipe whose best rate is the lowest or the highest that was tried may do better still: the page says so.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from report.frames.units import amount, code, percent, time_unit

if TYPE_CHECKING:
    from report.frames.compare import Comparison

EXPLAINED: Final = (
    "Every recipe was trained at as many rates, its default and a grid around it, and runs at the one with the best "
    "last accuracy on the tune set (a dash: that trial did not end well). Spent: TTT of all trials together. Scores on "
    "that set are no result: the best of several is too good by chance."
)
HEADER: Final = (
    "| recipe | rates tried: accuracy on the tune set | chosen | spread in points | spent |",
    "|---|---|---:|---:|---:|",
)


def learning_rate_lines(comparison: Comparison) -> list[str]:
    """Lay out the trials of every recipe; empty where rates were not chosen by trials."""
    runs = comparison.runs[comparison.runs["tuned_rates"] != ""].drop_duplicates("entry")
    if runs.empty:
        return []
    unit = time_unit(float(runs["tuning_seconds"].max()))
    lines, at_grid_edge = [], []
    for run in runs.to_dict("records"):
        trials = parse_trials(run["tuned_rates"])
        chosen = run["head_lr"] if math.isnan(run["lr"]) else run["lr"]
        listed = ", ".join(f"{rate:g}: {percent(score)}" for rate, score in trials)
        spread = percent(run["tuning_spread"]).removesuffix(" %")
        cells = (listed, f"{chosen:g}", spread, amount(run["tuning_seconds"], unit))
        lines.append(f"| {code(run['entry'])} | {' | '.join(cells)} |")
        at_grid_edge += [code(run["entry"])] if chosen in {trials[0][0], trials[-1][0]} else []
    explanation = EXPLAINED
    if at_grid_edge:
        explanation += f" At an end of their grid, so that more rates may find a better one: {', '.join(at_grid_edge)}."
    return ["### Rates", "", explanation, "", *HEADER, *lines, ""]


def parse_trials(text: str) -> list[tuple[float, float]]:
    """Rates and scores of a cell of `tuned_rates`, from the lowest rate; NaN for a trial that failed.

    >>> parse_trials("0.001=0.4000 0.00316=failed")
    [(0.001, 0.4), (0.00316, nan)]
    """
    pairs = (part.split("=") for part in text.split())
    return [(float(rate), float(score) if score != "failed" else math.nan) for rate, score in pairs]
