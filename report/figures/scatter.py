"""Quality against what it costs: one point per recipe, the Pareto front, sanity rows as lines.

Controls are no recipes, so they are reference lines; where they lie far below the points they get their own
strip under a broken axis, which leaves the room to the points that are to be told apart. Filled markers are on
the front. Points are named beside themselves: a legend of ten similar markers is not readable in print.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import seaborn as sns
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from report.figures.point_labels import name_points
from report.figures.style import GREY, canvas, draw_placeholder, entry_styles, styled
from report.frames.compare import pareto_front
from report.frames.disturbed import TIMES
from report.frames.units import SCORE_NAMES, byte_unit, energy_unit, percent, time_unit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure
    from matplotlib.text import Annotation

    from report.frames.compare import Comparison

COSTS: Final = {
    "peak_allocated_bytes": ("peak memory", byte_unit),
    "ttt_seconds": ("time to train (TTT)", time_unit),
    "energy_joules": ("energy of the GPU", energy_unit),
}
MAX_NAMES: Final = 16
LOG_SPAN: Final = 30
MIN_SPAN: Final = 2.0
STRIP_GAP: Final = 0.6
HEADROOM: Final = 0.2


@styled
def accuracy_against(comparison: Comparison, cost: str) -> Figure:
    """Draw quality against one column of COSTS; entries without both values are named in the note."""
    name, unit_of = COSTS[cost]
    score, entries = comparison.score, comparison.entries
    title, timed = f"{SCORE_NAMES[score]} against {name}", cost in TIMES
    recipes = entries[entries["kind"] != "control"]
    known = recipes[[cost, score]].notna().all(axis=1)
    lost = ", ".join(recipes.loc[~known & (recipes["num_ok"] > 0), "label"])
    notes = [f"Not measured, so not drawn: {lost}."] if lost else []
    if not known.any():
        figure, panel = canvas(comparison, title=title, inches=1.6, notes=notes, timed=timed)
        draw_placeholder(panel.subplots(), f"no finished run has both {score} and {cost}")
        return figure
    unit, divisor = unit_of(float(recipes.loc[known, cost].max()))
    points = _points(recipes[known], cost, score, divisor)
    if hidden := int((~points["named"]).sum()):
        notes.append(f"Grey: {hidden} more recipes; all are in the tables.")
    notes.append("Line and filled markers: Pareto front (nothing is both cheaper and better).")
    figure, panel = canvas(comparison, title=title, inches=2.75, notes=notes, timed=timed)
    controls = entries[(entries["kind"] == "control") & entries[score].notna()]
    axes, texts = _axes(panel, points, controls, score)
    panel.axes[-1].set_xlabel(f"{name} in {unit}, less is better")
    _limits(axes, points)
    _draw(axes, points, comparison)
    name_points(axes, points, texts)
    return figure


def _points(recipes: pd.DataFrame, cost: str, score: str, divisor: float) -> pd.DataFrame:
    """Return label, x, y (percent), their lows and highs, whether on the front, whether named."""
    points: pd.DataFrame = recipes[["label", "num_ok"]].reset_index(drop=True)
    for end in ("", "_low", "_high"):
        points[f"x{end}"] = (recipes[f"{cost}{end}"] / divisor).tolist()
        points[f"y{end}"] = (100 * recipes[f"{score}{end}"]).tolist()
    points["front"] = pareto_front(points["x"].tolist(), points["y"].tolist())
    points["named"] = _chosen(points) | (recipes["kind"] == "baseline").to_numpy() | (len(points) <= MAX_NAMES)
    return points


def _chosen(points: pd.DataFrame) -> pd.Series[bool]:
    """Mark the points of the front to name: one where several coincide, and not more than can be read."""
    front = points[points["front"]].drop_duplicates(["x", "y"]).sort_values("x")
    indices = np.unique(np.linspace(0, len(front) - 1, MAX_NAMES).round().astype(int))  # spread over the costs
    return points.index.to_series().isin(front.index[indices])


def _axes(panel: SubFigure, points: pd.DataFrame, controls: pd.DataFrame, score: str) -> tuple[Axes, list[Annotation]]:
    """Return the axes of the points and the control texts in them; far controls go into a strip below."""
    low, high = float(points["y_low"].min()), float(points["y_high"].max())
    span = max(high - low, MIN_SPAN)
    values = [100 * float(value) for value in controls[score]]
    texts: list[Annotation] = []
    if values and max(values) < low - STRIP_GAP * span:
        axes, strip = panel.subplots(2, 1, sharex=True, height_ratios=(5, 1))
        _control_lines(strip, controls, values)
        spread = max(max(values) - min(values), 1.0)
        strip.set_ylim(min(values) - 0.4 * spread, max(values) + spread)
        strip.set_yticks(sorted({round(min(values), 1), round(max(values), 1)}) if spread > 1 else [values[0]])
        strip.yaxis.set_major_formatter("{x:.1f}")
        strip.grid(visible=False)
        _break_marks(axes, strip)
        sns.despine(ax=strip)
    else:
        axes = panel.subplots()
        texts = _control_lines(axes, controls, values)
        low, high = min([low, *values]), max([high, *values])
    middle, span = (low + high) / 2, max(high - low, MIN_SPAN)
    axes.set_ylim(middle - (0.5 + HEADROOM) * span, middle + (0.5 + HEADROOM) * span)
    axes.set_ylabel(f"{SCORE_NAMES[score]} (%)")
    sns.despine(ax=axes, bottom=len(panel.axes) > 1)
    return axes, texts


def _control_lines(axes: Axes, controls: pd.DataFrame, values: list[float]) -> list[Annotation]:
    """Draw a dashed line per control, named at alternating ends so that close ones do not collide."""
    texts = []
    for order, (value, label) in enumerate(sorted(zip(values, controls["label"], strict=True))):
        axes.axhline(value, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
        right = order % 2
        texts.append(
            axes.annotate(
                f"{label} {percent(value / 100)}",
                (right, value),
                xycoords=("axes fraction", "data"),
                xytext=(-2 if right else 2, 1.5),
                textcoords="offset points",
                ha="right" if right else "left",
                va="bottom",
                fontsize=6,
                color=GREY,
            )
        )
    return texts


def _break_marks(axes: Axes, strip: Axes) -> None:
    """Show that the vertical axis is broken between the two panels."""
    axes.tick_params(bottom=False)
    mark: dict[str, Any] = {"marker": [(-1, -0.6), (1, 0.6)], "markersize": 6, "markeredgewidth": 0.7}
    for where, height in ((axes, 0), (strip, 1)):
        (line,) = where.plot([0], [height], transform=where.transAxes, color="k", clip_on=False, **mark)
        line.set_in_layout(False)


def _limits(axes: Axes, points: pd.DataFrame) -> None:
    """Leave room for names at both sides; a wide range of costs gets a logarithmic axis."""
    low, high = float(points["x_low"].min()), float(points["x_high"].max())
    if low > 0 and high / low > LOG_SPAN:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(low / (high / low) ** 0.12, high * (high / low) ** 0.2)
    else:
        room = (high - low) or 0.4 * high or 1.0
        axes.set_xlim(max(low - 0.15 * room, 0), high + 0.2 * room)


def _draw(axes: Axes, points: pd.DataFrame, comparison: Comparison) -> None:
    """Draw the front as a staircase, then whiskers and markers; points without a name are small and grey."""
    front = points[points["front"]].sort_values("x")
    axes.plot(front["x"], front["y"], drawstyle="steps-post", color="#9a9a9a", linewidth=1.0, zorder=1.5)
    rest = points[~points["named"]]
    axes.plot(rest["x"], rest["y"], ".", color="#bdbdbd", markersize=3, zorder=1.2)
    styles = entry_styles(comparison)
    for row in points[points["named"]].to_dict("records"):
        colour, marker = styles[row["label"]]
        x, y = row["x"], row["y"]
        if row["num_ok"] > 1:
            reach = np.array([[x - row["x_low"]], [row["x_high"] - x]])
            height = np.array([[y - row["y_low"]], [row["y_high"] - y]])
            axes.errorbar([x], [y], xerr=reach, yerr=height, color=colour, linewidth=0.8, zorder=2)
        fill = colour if row["front"] else "white"
        axes.plot([x], [y], marker=marker, color=fill, markeredgecolor=colour, markersize=5, zorder=4)
