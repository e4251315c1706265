"""What one technique more, or less, does to quality, time and memory: the ladder, and leaving one out.

Bars are effects against one named row; on the ladder each row also says, in brackets, what it changes against the
row above. Differences are of means over the seeds; whether one can be told from chance is in the figure of differences.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import seaborn as sns

from report.figures.style import GREY, canvas, draw_placeholder, styled, wrap_label
from report.frames.ablations import by_label, cumulative_ablation, leave_one_out
from report.frames.units import MISSING, times

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from report.frames.compare import Comparison

ROW_INCHES: Final = 0.26
PANELS: Final = (("quality, points", "#0173b2"), ("time to train", "#de8f05"), ("peak memory", "#029e73"))
COSTS: Final = ("ttt_seconds", "peak_allocated_bytes")


class Effect(NamedTuple):
    """One row: its name, and of quality (points), time and memory (ratios) the size and the words beside it."""

    name: str
    sizes: tuple[float, float, float]
    words: tuple[str, str, str]


@styled
def cumulative_ablation_bars(comparison: Comparison) -> Figure:
    """Draw techniques added one by one: each row against the first, and in brackets against the row above."""
    ablation_steps = cumulative_ablation(comparison)
    title = "The ladder: one technique more on each row"
    if len(ablation_steps) < 2:  # noqa: PLR2004 - one row is no ladder
        return _empty_figure(
            comparison, title, "no finished recipe has just one technique more than a finished baseline"
        )
    rows = by_label(comparison)
    effects = []
    for row, ablation_step in enumerate(ablation_steps):
        whole = _against(rows, comparison.score, ablation_step.label, ablation_steps[0].label)
        step = _against(rows, comparison.score, ablation_step.label, ablation_steps[max(row - 1, 0)].label)
        words = _words(whole) if not row else [f"{w} ({s})" for w, s in zip(_words(whole), _words(step), strict=True)]
        effects.append(
            Effect(f"+ {ablation_step.member}" if row else ablation_step.label, whole, (words[0], words[1], words[2]))
        )
    note = f"Against {ablation_steps[0].label}; in brackets against the row above. Each row keeps what stands above it."
    return _draw(comparison, title, effects, note)


@styled
def leave_one_out_bars(comparison: Comparison) -> Figure:
    """Draw one recipe without each of its techniques in turn, against the whole recipe."""
    whole, ablation_steps = leave_one_out(comparison)
    title = "Leave one out"
    if not ablation_steps:
        reason = "no finished recipe has also been run without two or more of its techniques, each left out alone"
        return _empty_figure(comparison, title, reason)
    rows = by_label(comparison)
    effects = []
    for ablation_step in ablation_steps:
        values = _against(rows, comparison.score, ablation_step.label, whole)
        words = _words(values)
        effects.append(Effect(f"without {ablation_step.member}", values, (words[0], words[1], words[2])))
    note = f"Against {whole}: what is lost, or saved, without each part. Above 1 × the part had saved something."
    return _draw(comparison, title, effects, note)


def _against(rows: dict[str, dict[str, Any]], score: str, label: str, base: str) -> tuple[float, float, float]:
    """Quality in points more than, and time and memory over, those of `base`."""
    time, memory = (float(rows[label][cost]) / float(rows[base][cost] or math.nan) for cost in COSTS)
    return 100 * (float(rows[label][score]) - float(rows[base][score])), time, memory


def _words(values: tuple[float, float, float]) -> list[str]:
    quality, *ratios = values
    return [MISSING if math.isnan(quality) else f"{quality:+.1f}", *(times(ratio) for ratio in ratios)]


def _empty_figure(comparison: Comparison, title: str, reason: str) -> Figure:
    figure, panel = canvas(comparison, title=title, inches=1.6, spread="", timed=True)
    draw_placeholder(panel.subplots(), reason)
    return figure


def _draw(comparison: Comparison, title: str, effects: Sequence[Effect], note: str) -> Figure:
    inches = 0.75 + ROW_INCHES * len(effects)
    figure, panel = canvas(comparison, title=title, inches=inches, notes=[note], spread="", timed=True)
    for panel_index, (axes, (name, colour)) in enumerate(zip(panel.subplots(1, 3, sharey=True), PANELS, strict=True)):
        _bars(axes, [effect.sizes[panel_index] for effect in effects], 1.0 if panel_index else 0.0, colour)
        for row, effect in enumerate(effects):
            axes.text(
                1.0, row - 0.32, effect.words[panel_index], transform=axes.get_yaxis_transform(), ha="right", fontsize=6
            )
        axes.set_title(name, fontsize=7)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        sns.despine(ax=axes, left=True)
    axes.set_yticks(range(len(effects)), [wrap_label(effect.name, 18) for effect in effects])
    axes.set_ylim(len(effects) - 0.5, -0.6)
    return figure


def _bars(axes: Axes, values: Sequence[float], neutral: float, colour: str) -> None:
    """Bars from the value that means no change, thin ones below the words."""
    finite = [(row, value) for row, value in enumerate(values) if not math.isnan(value)]
    axes.axvline(neutral, color=GREY, linewidth=0.6)
    axes.barh(
        [row + 0.14 for row, _ in finite], [value - neutral for _, value in finite], left=neutral, height=0.34,
        color=colour,
    )  # fmt: skip
    low, high = min([neutral, *(v for _, v in finite)]), max([neutral, *(v for _, v in finite)])
    room = 0.08 * ((high - low) or 1.0)
    axes.set_xlim(low - room, high + room)
    axes.locator_params(axis="x", nbins=3)
