"""Peak memory as predicted before the run against what the allocator then measured."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import seaborn as sns

from report.figures.style import GREY, canvas, draw_placeholder, row_inches, styled, wrap_label
from report.frames.units import byte_unit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from report.frames.compare import Comparison

PREDICTED: Final = "predicted_peak_bytes"
MEASURED: Final = "peak_allocated_bytes"
MAX_ROWS: Final = 40


@styled
def predicted_memory(comparison: Comparison) -> Figure:
    """Draw a bar of what was measured and a mark of what was predicted, with the error in percent."""
    entries = comparison.entries
    rows = entries[entries["kind"] != "control"].dropna(subset=[PREDICTED, MEASURED]).reset_index(drop=True)
    title = "Peak memory, predicted and measured"
    if rows.empty:
        figure, panel = canvas(comparison, title=title, inches=1.6)
        draw_placeholder(panel.subplots(), f"no finished run has both {PREDICTED} and {MEASURED}")
        return figure
    errors = 100 * (rows[PREDICTED] / rows[MEASURED] - 1)
    notes = [f"Median size of the error {np.median(errors.abs()):.2g} %, largest {errors.abs().max():.2g} %."]
    if len(rows) > MAX_ROWS:
        notes.append(f"Over all recipes; {len(rows) - MAX_ROWS} more are in runs.csv.")
    rows = rows.head(MAX_ROWS)
    names = [wrap_label(label, 22) for label in rows["label"]]
    inches = 0.95 + row_inches(names) * len(rows)
    figure, panel = canvas(comparison, title=title, inches=inches, notes=notes, spread="")
    axes = panel.subplots()
    unit, size = byte_unit(float(rows[MEASURED].max()))
    row_positions = np.arange(len(rows))
    axes.barh(row_positions, rows[MEASURED] / size, height=0.6, color="#9ecae1", label="measured")
    axes.plot(
        rows[PREDICTED] / size,
        row_positions,
        "|",
        color="#d55e00",
        markersize=8,
        markeredgewidth=1.4,
        label="predicted",
    )
    longest = float(rows[[PREDICTED, MEASURED]].max().max()) / size
    for row, end, error in zip(row_positions, rows[[PREDICTED, MEASURED]].max(axis=1) / size, errors, strict=False):
        axes.text(end + 0.02 * longest, float(row), f"{error:+.1f} %", va="center", fontsize=6, color=GREY)
    axes.set_yticks(row_positions, names)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.22 * longest)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(unit)
    sns.despine(ax=axes, left=True)
    panel.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
