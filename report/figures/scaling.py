"""What a recipe saves where something grows: settings of one sweep that differ in model or batch alone.

The only figure over several settings. Ratios are taken within a setting, against its own baseline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from report.figures.style import GREY, MARKERS, NOTE_SIZE, PALETTE, WIDTH, draw_placeholder, styled, wrap_label
from report.frames.disturbed import left_out

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from report.frames.compare import Comparison

PANELS: Final = {"memory_ratio": "peak memory × baseline", "ttt_ratio": "time to train × baseline"}
MAX_LINES: Final = 9
TICKS: Final = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 1.0, 1.2, 1.5, 2.0, 3.0, 5.0)


def scaling_ratios(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Ratios of every recipe in settings that have a baseline, the small settings first.

    Columns: setting (its model and batch), label, PANELS. Of recipes in one setting only nothing is kept.
    """
    based = [c for c in comparisons if c.baseline is not None]
    based = sorted(based, key=lambda c: float(c.entries["peak_allocated_bytes"].max()))
    rows = [
        {"setting": f"{c.setting['model']}\nbatch {c.setting['batch_size']}", "label": row["label"]}
        | {column: row[column] for column in PANELS}
        for c in based
        for row in c.entries[(c.entries["kind"] == "run") & (c.entries["num_ok"] > 0)].to_dict("records")
    ]
    table = pd.DataFrame(rows, columns=["setting", "label", *PANELS]).drop_duplicates(["setting", "label"])
    several: pd.DataFrame = table[table.groupby("label")["setting"].transform("nunique") > 1]
    return several


@styled
def scaling_curves(comparisons: Sequence[Comparison]) -> Figure:
    """Draw each recipe's ratios over the settings, one line for each recipe."""
    table = scaling_ratios(comparisons)
    figure = Figure(figsize=(WIDTH, 1.6 if table.empty else 4.1), layout="constrained")
    figure.suptitle("Savings against model and batch size", x=0.02, ha="left", fontsize=8, fontweight="bold")
    if table.empty:
        draw_placeholder(figure.subplots(), "no recipe ran beside its baseline in two settings (models or batch sizes)")
        return figure
    settings, labels = list(dict.fromkeys(table["setting"])), list(dict.fromkeys(table["label"]))
    both = figure.subplots(2, 1, sharex=True)
    for axes, (column, name) in zip(both, PANELS.items(), strict=True):
        _lines(axes, table, column, settings, labels[:MAX_LINES])
        axes.set_ylabel(name)
        sns.despine(ax=axes)
    both[1].set_xticks(range(len(settings)), settings)
    both[1].set_xlim(-0.3, len(settings) - 0.7)
    more = f" {len(labels) - MAX_LINES} more recipes are in the tables." if len(labels) > MAX_LINES else ""
    disturbed = left_out(sum(len(comparison.disturbed) for comparison in comparisons))
    more += f"\n{disturbed}." if disturbed else ""
    both[1].set_xlabel(
        f"Against the baseline of the same setting, means of seeds.{more}", fontsize=NOTE_SIZE, color=GREY
    )
    names = {line.get_label(): line for line in both[0].get_lines() if not str(line.get_label()).startswith("_")}
    figure.legend(names.values(), [wrap_label(str(name), 20) for name in names], loc="outside lower center", ncols=2)
    return figure


def _lines(axes: Axes, table: pd.DataFrame, column: str, settings: list[str], labels: list[str]) -> None:
    axes.axhline(1, color=GREY, linewidth=0.6)
    axes.set_yscale("log")
    for index, label in enumerate(labels):
        rows = table[(table["label"] == label) & table[column].notna()]
        across = [settings.index(setting) for setting in rows["setting"]]
        colour, marker = PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)]
        axes.plot(across, rows[column], color=colour, marker=marker, markersize=3.5, linewidth=1, label=label)
    low, high = axes.get_ylim()
    axes.set_yticks([tick for tick in TICKS if low <= tick <= high])
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_minor_formatter(NullFormatter())
