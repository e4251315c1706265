"""Tables as coloured cells: quality by kind of question, and what two techniques do together.

Every cell carries its number; colour only helps to find it. An empty cell was not measured.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np
import pandas as pd
from matplotlib import colormaps
from matplotlib.colors import LogNorm, Normalize

from report.figures.style import canvas, draw_placeholder, row_inches, styled, wrap_label
from report.frames.ablations import by_label, recipes
from report.frames.steps import members
from report.frames.units import SCORE_NAMES, times

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from report.frames.compare import Comparison

SCORE: Final = "vqa_accuracy"
QUESTION_TYPE_PREFIX: Final = f"{SCORE}/question_type/"
ANSWER_TYPE_PREFIX: Final = f"{SCORE}/"
MAX_ROWS: Final = 45
MAX_COLUMNS: Final = 6
MAX_MEMBERS: Final = 10
MAX_FLAT_LETTERS: Final = 9  # that fit above a cell of a wide table
MAX_HEAD: Final = 20
DARK: Final = 0.55
PAIR_COSTS: Final = {"ttt_ratio": "time to train", "memory_ratio": "peak memory"}


@styled
def by_answer_type(comparison: Comparison) -> Figure:
    """Draw quality by type of answer: a row for each recipe, controls last."""
    table = _subsets(comparison, ANSWER_TYPE_PREFIX)
    table = table[[name for name in table.columns if not name.startswith("question_type/")]]
    return _quality(
        comparison, table, "by type of answer", f"metrics.csv has no {ANSWER_TYPE_PREFIX}… of a finished run"
    )


@styled
def by_question_type(comparison: Comparison) -> Figure:
    """Draw quality by how the question begins: a row for each type, a column for the baseline and the best recipes."""
    table = _subsets(comparison, QUESTION_TYPE_PREFIX)
    entries = comparison.entries[comparison.entries["label"].isin(table.index)]
    best = entries[entries["kind"] == "run"].sort_values(comparison.score, ascending=False, kind="stable")["label"]
    base = entries.loc[entries["kind"] == "baseline", "label"]
    shown = list(dict.fromkeys([*base, *best]))[:MAX_COLUMNS]
    transposed = table.loc[shown].T
    transposed = transposed.loc[transposed.mean(axis=1).sort_values(kind="stable").index]
    return _quality(
        comparison, transposed, "by type of question", f"metrics.csv has no {QUESTION_TYPE_PREFIX}… of a finished run"
    )


def _subsets(comparison: Comparison, start: str) -> pd.DataFrame:
    """Mean over the seeds, in percent, of the metrics that begin with `start`: entries by name of the subset."""
    metrics = comparison.metrics
    chosen = metrics[metrics["metric"].str.startswith(start) & (metrics["split"] == "eval")]
    table = chosen.assign(part=chosen["metric"].str.removeprefix(start)).pivot_table(
        index="entry", columns="part", values="value", aggfunc="mean", sort=False
    )
    order = [label for label in comparison.entries["label"] if label in table.index]
    ordered: pd.DataFrame = 100 * table.loc[order]
    return ordered


def _quality(comparison: Comparison, table: pd.DataFrame, what: str, reason: str) -> Figure:
    title = f"{SCORE_NAMES[SCORE]} {what} (%)"
    if table.empty or not table.columns.size:
        figure, panel = canvas(comparison, title=title, inches=1.6)
        draw_placeholder(panel.subplots(), reason)
        return figure
    notes = [f"{len(table) - MAX_ROWS} more rows are in metrics.csv."] if len(table) > MAX_ROWS else []
    table = table.head(MAX_ROWS)
    names = [wrap_label(str(name)) for name in table.index]
    inches = 0.55 + row_inches(names) * len(table) + 0.055 * _rotated_letters(table)
    figure, panel = canvas(comparison, title=title, inches=inches, notes=notes, spread="")
    texts = table.map(lambda value: "" if math.isnan(value) else f"{value:.1f}")
    _cells(panel.subplots(), table, texts, Normalize(0, 100), "Blues")
    return figure


@styled
def pairwise_heatmap(comparison: Comparison) -> Figure:
    """Draw time and memory of every pair of techniques that ran, × the baseline; on the diagonal each alone."""
    title = "Pairs of techniques, × baseline"
    pairs = {pair: label for pair, label in recipes(comparison).items() if len(pair) == 2}  # noqa: PLR2004 - a pair
    failed = _failed_pairs(comparison)
    counts = pd.Series([member for pair in (*pairs, *failed) for member in sorted(pair)], dtype=object).value_counts()
    names = sorted(counts.index[:MAX_MEMBERS], key=list(counts.index).index)
    if not names:
        figure, panel = canvas(comparison, title=title, inches=1.6, timed=True)
        draw_placeholder(panel.subplots(), "no recipe of this sweep is a pair of techniques")
        return figure
    more = f"; the {MAX_MEMBERS} in most pairs of {len(counts)}" if len(counts) > MAX_MEMBERS else ""
    words = " Words: why a pair did not run." if failed else ""
    notes = [f"Below 1 is less than the baseline. Diagonal: the technique alone{more}.{words}"]
    inches = 2 * (0.5 + 0.24 * len(names) + 0.055 * max(min(len(name), MAX_HEAD) for name in names))
    figure, panel = canvas(comparison, title=title, inches=inches, notes=notes, spread="", timed=True)
    _pair_panels(panel, comparison, names, failed)
    return figure


def _failed_pairs(comparison: Comparison) -> dict[frozenset[str], str]:
    """Statuses of the pairs of which no run finished, by their members."""
    entries = comparison.entries[(comparison.entries["num_ok"] == 0) & (comparison.entries["kind"] == "run")]
    plans = {frozenset(members(plan)): status for plan, status in zip(entries["plan"], entries["status"], strict=True)}
    return {pair: status for pair, status in plans.items() if len(pair) == 2}  # noqa: PLR2004 - a pair


def _pair_panels(panel: SubFigure, comparison: Comparison, names: list[str], failed: dict[frozenset[str], str]) -> None:
    labels, rows = recipes(comparison), by_label(comparison)
    for axes, (column, what) in zip(panel.subplots(2, 1), PAIR_COSTS.items(), strict=True):
        values = pd.DataFrame(np.nan, index=names, columns=names)
        texts = pd.DataFrame("", index=names, columns=names)
        for one, other in [*((name, name) for name in names), *combinations(names, 2)]:
            pair = frozenset({one, other})
            ratio = float(rows[labels[pair]][column]) if pair in labels else math.nan
            values.loc[other, one] = ratio
            texts.loc[other, one] = failed.get(pair, "") if math.isnan(ratio) else times(ratio).removesuffix("×")
        _cells(axes, values, texts, LogNorm(0.25, 4), "RdYlBu_r")
        axes.set_title(what, fontsize=7)


def _rotated_letters(table: pd.DataFrame) -> int:
    """Letters of the longest head when heads have to stand steep, else 0."""
    longest = min(max(len(str(name)) for name in table.columns), MAX_HEAD)
    return longest if longest > MAX_FLAT_LETTERS else 0


def _cells(axes: Axes, table: pd.DataFrame, texts: pd.DataFrame, norm: Normalize, colours: str) -> None:
    """Draw the cells of a table with their texts, rows and columns named."""
    shades, values = colormaps[colours], table.to_numpy(dtype=float)
    rows, columns = (np.arange(size + 1) - 0.5 for size in values.shape)
    axes.pcolormesh(columns, rows, values, norm=norm, cmap=colours)  # cells stay shapes in SVG and PDF
    axes.invert_yaxis()
    for row in range(table.shape[0]):
        for column in range(table.shape[1]):
            value = float(values[row, column])
            red, green, blue, _ = (1.0, 1.0, 1.0, 1.0) if math.isnan(value) else shades(float(norm(value)))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < DARK  # luma of BT.601
            ink = "white" if dark else "black"
            axes.text(column, row, str(texts.iloc[row, column]), ha="center", va="center", fontsize=6, color=ink)
    axes.set_yticks(range(table.shape[0]), [wrap_label(str(name)) for name in table.index])
    heads = [name if len(name) <= MAX_HEAD else f"{name[: MAX_HEAD - 1]}…" for name in map(str, table.columns)]
    rotated = _rotated_letters(table)
    axes.set_xticks(range(table.shape[1]), heads, rotation=40 if rotated else 0, ha="left" if rotated else "center")
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
