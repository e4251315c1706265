"""Every seed's score, their mean and its interval: how far a recipe's luck reaches.

The interval is Student's t over the seeds: it speaks of other seeds on these questions. Comparing two recipes by
whether their intervals overlap would be wrong; the figure of differences pairs the seeds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import seaborn as sns
from scipy.special import stdtrit

from report.figures.style import GREY, canvas, draw_placeholder, entry_styles, row_inches, styled, wrap_label
from report.frames.inference import ALPHA
from report.frames.units import SCORE_NAMES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from report.frames.compare import Comparison

MAX_ROWS: Final = 40
SPREAD: Final = "lines 95 % intervals over seeds"


def confidence_interval(values: Sequence[float]) -> tuple[float, float]:
    """Ends of the 95 % interval of the mean of at least two values; one value gives itself twice."""
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, mean
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1) / len(values))
    half = -float(stdtrit(len(values) - 1, ALPHA / 2)) * spread
    return mean - half, mean + half


@styled
def seed_scores(comparison: Comparison) -> Figure:
    """Draw the score of every run, by recipe; with several seeds their mean and interval."""
    runs = comparison.finished.dropna(subset=[comparison.score])
    title = f"{SCORE_NAMES[comparison.score]} of every seed"
    found = runs.groupby("entry", sort=False)[comparison.score].apply(list).to_dict()
    labels = [label for label in comparison.entries["label"] if label in found]
    if not labels:
        figure, panel = canvas(comparison, title=title, inches=1.6)
        draw_placeholder(panel.subplots(), f"no finished run has {comparison.score}")
        return figure
    single = [label for label in labels if len(found[label]) == 1]
    notes = ["One seed has no interval."] if len(single) == len(labels) else []
    if 0 < len(single) < len(labels):
        notes.append(f"One seed, no interval: {len(single)} recipes.")
    if len(labels) > MAX_ROWS:
        notes.append(f"{len(labels) - MAX_ROWS} more recipes are in the tables.")
    labels = labels[:MAX_ROWS]
    names = [wrap_label(label, 24) for label in labels]
    inches = 0.65 + row_inches(names) * len(labels)
    figure, panel = canvas(comparison, title=title, inches=inches, notes=notes, spread=SPREAD)
    axes = panel.subplots()
    _rows(
        axes,
        [[100 * value for value in found[label]] for label in labels],
        [entry_styles(comparison)[k][0] for k in labels],
    )
    axes.set_yticks(range(len(labels)), names)
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(f"{SCORE_NAMES[comparison.score]} (%)")
    sns.despine(ax=axes, left=True)
    return figure


def _rows(axes: Axes, rows: Sequence[Sequence[float]], colours: Sequence[str]) -> None:
    first = math.fsum(rows[0]) / len(rows[0])
    axes.axvline(first, color=GREY, linewidth=0.5, linestyle=":")
    for row, (values, colour) in enumerate(zip(rows, colours, strict=True)):
        low, high = confidence_interval(values)
        axes.hlines(row, max(low, 0), min(high, 100), color=colour, linewidth=1)
        axes.plot(values, [row] * len(values), "o", color=colour, markersize=2.5, alpha=0.6, markeredgewidth=0)
        axes.plot([(low + high) / 2], [row], "|", color=colour, markersize=7, markeredgewidth=1.4)
    ends = [end for values in rows for end in values]  # wide intervals of two seeds may leave the axes
    room = 0.35 * ((max(ends) - min(ends)) or 1.0)
    axes.set_xlim(min(ends) - room, max(ends) + room)
