"""Learning curves: quality and loss against seconds of training, and against updates.

Updates cost differently from recipe to recipe; seconds are what a user waits. Curves of several seeds are
averaged step by step (the steps are the same for every seed), with a band from lowest to highest. Controls are
left out: they would take half the height.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import seaborn as sns

from report.figures.style import EntryStyle, canvas, draw_placeholder, entry_styles, styled, wrap_label
from report.frames.units import time_unit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from report.frames.compare import Comparison

MAX_HIGHLIGHTED: Final = 9
MAX_NAME: Final = 16
TUNE_NAMES: Final = {"vqa_accuracy": "Tune-set VQA accuracy", "accuracy": "Tune-set accuracy"}


@styled
def learning_curves(comparison: Comparison, *, by_updates: bool = False) -> Figure:
    """Draw tune-set quality over train loss, along seconds or updates; a panel without data says so."""
    recipes = comparison.entries.loc[comparison.entries["kind"] != "control", "label"]
    history = comparison.history.dropna(subset=["value"] if by_updates else ["train_seconds", "value"])
    history = history[history["entry"].isin(set(recipes))]
    tune, train = history[history["split"] == "tune"], history[history["split"] == "train"]
    score = comparison.score if (tune["metric"] == comparison.score).any() else "accuracy"
    quality = tune[tune["metric"] == score]
    panels = (
        (f"{TUNE_NAMES[score]} (%)", quality.assign(value=100 * quality["value"])),
        ("Train loss", train[train["metric"] == "loss"]),
    )
    measured = {label for _, rows in panels for label in rows["entry"]}
    drawn = [label for label in recipes if label in measured]
    styles = _highlighted(comparison, drawn)
    hidden = len(drawn) - len(styles)
    notes = [f"Thin grey: {hidden} more recipes; the best by final quality are coloured."] if hidden else []
    names = {label: wrap_label(label, 20) for label in styles}
    columns = 3 if max(map(len, names.values()), default=0) <= MAX_NAME else 2
    lines = max((name.count("\n") + 1 for name in names.values()), default=0)
    inches = 3.3 + 0.14 * lines * math.ceil(len(names) / columns)
    title = f"Learning curves{' by updates' if by_updates else ''}"
    figure, panel = canvas(comparison, title=title, inches=inches, notes=notes, timed=not by_updates)
    both = panel.subplots(2, 1, sharex=True, height_ratios=(1.2, 1))
    slowest = max((float(rows["train_seconds"].max()) for _, rows in panels if len(rows)), default=0.0)
    unit, divisor = time_unit(slowest)
    for axes, (label, rows) in zip(both, panels, strict=True):
        if rows.empty:
            draw_placeholder(axes, f"history.csv has no {label.removesuffix(' (%)')} of a finished recipe")
            continue
        _curves(axes, rows, drawn, styles, None if by_updates else divisor)
        axes.set_ylabel(label)
        sns.despine(ax=axes)
    both[1].set_xlabel("updates" if by_updates else f"training time in {unit}")
    handles = {line.get_label(): line for axes in both for line in axes.get_lines() if line.get_label() in names}
    if handles:
        panel.legend(handles.values(), [names[str(key)] for key in handles], loc="outside lower center", ncols=columns)
    return figure


def _highlighted(comparison: Comparison, drawn: list[str]) -> dict[str, EntryStyle]:
    """Choose the entries worth a colour: all, or with many the baseline and the best; return their looks."""
    entries = comparison.entries[comparison.entries["label"].isin(drawn)]
    recipes = entries[entries["kind"] == "run"].sort_values(comparison.score, ascending=False, kind="stable")
    kept = {*entries.loc[entries["kind"] != "run", "label"], *recipes["label"].head(MAX_HIGHLIGHTED - 1)}
    return {label: style for label, style in entry_styles(comparison).items() if label in kept}


def _curves(
    axes: Axes, rows: pd.DataFrame, drawn: list[str], styles: dict[str, EntryStyle], unit: float | None
) -> None:
    """Draw one line per entry, in the table's order; entries without a look are thin and unnamed.

    unit: seconds that are 1 on the axis; None for updates.
    """
    value = "value"
    steps = rows.groupby(["entry", "step"]).agg(
        seconds=("train_seconds", "mean"), mean=(value, "mean"), low=(value, "min"), high=(value, "max")
    )
    curves = {str(label): curve for label, curve in steps.groupby(level="entry")}
    for label in (label for label in drawn if label in curves):
        curve = curves[label]
        along = curve["seconds"] / unit if unit else curve.index.get_level_values("step")
        if label not in styles:
            axes.plot(along, curve["mean"], color="#cfcfcf", linewidth=0.5, zorder=1)
            continue
        colour, marker = styles[label]
        every = max(1, len(curve) // 5)
        axes.plot(
            along,
            curve["mean"],
            color=colour,
            linewidth=1.0,
            marker=marker,
            markersize=3,
            markevery=every,
            label=label,
            zorder=3,
        )
        axes.fill_between(along, curve["low"], curve["high"], color=colour, alpha=0.15, linewidth=0)
