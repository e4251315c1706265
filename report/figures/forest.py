"""Every recipe's difference from the baseline with its interval: what is told apart, and what is not.

Drawn in percentage points, with the margin of equivalence as a band: a recipe equals the baseline where its interval
(at the level of two one-sided tests) fits the band, and differs where its 95 % interval leaves the middle line out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import seaborn as sns

from report.figures.style import GREY, canvas, draw_placeholder, row_inches, styled, wrap_label
from report.frames.inference import BETTER, EQUAL, MARGIN, UNKNOWN, WORSE
from report.frames.paired import statements

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from report.frames.compare import Comparison

SPREAD: Final = "lines 95 % intervals"
MAX_ROWS: Final = 40
COLOURS: Final = {BETTER: "#029e73", EQUAL: "#0173b2", WORSE: "#d55e00", UNKNOWN: GREY}
MARKERS: Final = {BETTER: "^", EQUAL: "s", WORSE: "v", UNKNOWN: "o"}


@styled
def differences(comparison: Comparison) -> Figure:
    """Draw the difference of each recipe with several seeds; with one seed that of its run, hollow."""
    base = comparison.baseline
    title = f"Difference from {wrap_label(base['label']) if base is not None else 'the baseline'}, with 95 % interval"
    rows = statements(comparison.paired).sort_values("difference", ascending=False, kind="stable", ignore_index=True)
    if rows.empty:
        figure, panel = canvas(comparison, title=title, inches=1.6)
        draw_placeholder(panel.subplots(), "no recipe has predictions and a baseline run of the same seed")
        return figure
    notes = ["Better, worse and equal are each wrong in about 5 % of cases. Band: within 1 point."]
    if (rows["level"] == "run").any():
        notes.append("Hollow: one seed, an interval over questions; it speaks of that model, not of the recipe.")
    hidden = len(rows) - MAX_ROWS
    if hidden > 0:
        notes.append(f"{hidden} more recipes are in the tables.")
    rows = rows.head(MAX_ROWS)
    names = [wrap_label(label, 24) for label in rows["strategy"]]
    inches = 0.85 + row_inches(names) * len(rows)
    figure, panel = canvas(comparison, title=title, inches=inches, notes=notes, spread=SPREAD)
    axes = panel.subplots()
    axes.axvspan(-100 * MARGIN, 100 * MARGIN, color="#e8f1f8", zorder=0)
    axes.axvline(0, color="k", linewidth=0.6)
    _marks(axes, rows)
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("percentage points")
    sns.despine(ax=axes, left=True)
    panel.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def _marks(axes: Axes, rows: pd.DataFrame) -> None:
    """Draw interval and difference of every row, by verdict; hollow where one run is all there is."""
    for verdict, colour in COLOURS.items():
        for hollow, suffix in ((False, ""), (True, " (one run)")):
            rows_of_verdict = np.flatnonzero((rows["verdict"] == verdict) & ((rows["level"] == "run") == hollow))
            if len(rows_of_verdict):
                part = 100 * rows.iloc[rows_of_verdict][["difference", "low", "high"]]
                axes.hlines(rows_of_verdict, part["low"], part["high"], color=colour, linewidth=1)
                face: dict[str, Any] = {
                    "markerfacecolor": "white" if hollow else colour,
                    "markersize": 3.5,
                    "linestyle": "",
                }
                axes.plot(
                    part["difference"], rows_of_verdict, MARKERS[verdict], color=colour, label=verdict + suffix, **face
                )
