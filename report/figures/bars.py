"""Where memory and time go: one stacked bar per recipe.

A bar adds up to the measured total, never to less: what the parts do not explain is drawn as a hatched rest.
A recipe without a total keeps its row, with the reason in place of a bar.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, NamedTuple

import pandas as pd
import seaborn as sns

from bench.records.record import MEMORY_KINDS, TARGET_SHARE
from report.figures.style import GREY, canvas, draw_placeholder, row_inches, styled, wrap_label
from report.frames.steps import PARTS
from report.frames.targets import SECONDS
from report.frames.units import amount, byte_unit, step_unit, time_unit, times

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from report.frames.compare import Comparison

MAX_BARS: Final = 40
TOLERANCE: Final = 0.01
MEASURED: Final = {"step_seconds": ", ".join(PARTS.values()), "reach": f"reached a target ({SECONDS})"}
COLOURS: Final = ("#013a5e", "#de8f05", "#56b4e9", "#029e73", "#cccccc")


class Stack(NamedTuple):
    """What a figure of bars shows.

    total, ratio: columns of `entries`; parts: name -> values that add up to the total; after: more, outside it;
    missing_text: what to say in place of a bar.
    """

    title: str
    total: str
    ratio: str
    unit_of: Callable[[float], tuple[str, float]]
    parts: dict[str, pd.Series[float]]
    after: dict[str, pd.Series[float]]
    missing_text: str = "not measured ({status})"


@styled
def memory_bars(comparison: Comparison) -> Figure:
    """Draw the peak memory of a training step, split by what holds it."""
    rows = _rows(comparison)
    parts = {kind: rows[f"{kind}_bytes"] for kind in MEMORY_KINDS}
    return _draw(
        comparison,
        rows,
        Stack("Peak memory by use", "peak_allocated_bytes", "memory_ratio", byte_unit, parts, {}),
    )


@styled
def time_bars(comparison: Comparison) -> Figure:
    """Draw the time to train (TTT) by what it was spent on, and the evaluation beside it."""
    rows = _rows(comparison)
    wait = rows["data_wait_seconds"].fillna(0)
    parts = {
        "recipe set-up": rows["setup_seconds"],
        "compile + warm-up": rows[["warmup_seconds", "compile_seconds"]].max(axis=1),
        "training": (rows["train_seconds"] - wait).clip(lower=0),
        "waiting for data": wait.where(rows["train_seconds"].notna()),
    }
    after = {"evaluation (not in TTT)": rows["eval_seconds"]}
    return _draw(
        comparison,
        rows,
        Stack("Time to train (TTT) by use", "ttt_seconds", "ttt_ratio", time_unit, parts, after),
    )


@styled
def step_bars(comparison: Comparison) -> Figure:
    """Draw the parts of one update, each measured with the device synchronised, and what compiling adds to it."""
    rows = _rows(comparison)
    parts = {name: rows[column] for name, column in PARTS.items()}
    total = pd.DataFrame(parts).sum(axis=1, skipna=False)  # a bar without a part would be too short
    base = total[rows["kind"] == "baseline"]
    ratio = total / (base.iloc[0] if len(base) == 1 else math.nan)
    added = {"step_seconds": total, "step_seconds_low": total, "step_seconds_high": total, "step_ratio": ratio}
    after = {"compiling, spread over the run's updates": rows["compile_seconds"] / rows["steps"]}
    return _draw(
        comparison,
        rows.assign(**added),
        Stack("Parts of an update", "step_seconds", "step_ratio", step_unit, parts, after),
    )


@styled
def target_bars(comparison: Comparison) -> Figure:
    """Draw the time to the target, the median of the seeds, and what is trained after it."""
    rows = _rows(comparison)
    seconds = comparison.finished.groupby("entry")[SECONDS]
    measured, median = seconds.count(), seconds.median()
    reach = rows["label"].map(median.where(measured > 0))
    base = reach[rows["kind"] == "baseline"]
    ratio = reach / (base.iloc[0] if len(base) == 1 else math.nan)
    missed = reach == math.inf
    reach = reach.mask(missed)
    rows["status"] = rows["status"].mask(missed, "target not reached")
    added = {"reach": reach, "reach_low": reach, "reach_high": reach, "reach_ratio": ratio.mask(missed)}
    after = {"training after it": (rows["ttt_seconds"] - reach).clip(lower=0)}
    return _draw(
        comparison,
        rows.assign(**added),
        Stack(
            f"Time to {100 * TARGET_SHARE:.0f} % of the baseline's tune accuracy", "reach", "reach_ratio", time_unit,
            {"to the target": reach}, after, missing_text="none ({status})",
        ),
    )  # fmt: skip


def _name(label: str) -> str:
    return wrap_label(label, 20)


def _rows(comparison: Comparison) -> pd.DataFrame:
    """Entries that get a row: all but the controls."""
    entries = comparison.entries
    rows: pd.DataFrame = entries[entries["kind"] != "control"].reset_index(drop=True)
    return rows


def _draw(comparison: Comparison, rows: pd.DataFrame, stack: Stack) -> Figure:
    """One row per entry; parts, rest, and the total with its ratio to the baseline at the end."""
    timed = stack.unit_of is not byte_unit
    if rows[stack.total].isna().all():
        figure, panel = canvas(comparison, title=stack.title, inches=1.6, timed=timed)
        draw_placeholder(panel.subplots(), f"no finished run has {MEASURED.get(stack.total, stack.total)}")
        return figure
    rows, hidden = rows.head(MAX_BARS), len(rows) - MAX_BARS
    explained = sum((part.fillna(0) for part in stack.parts.values()), start=pd.Series(0.0, index=rows.index))
    rest = (rows[stack.total] - explained.head(len(rows))).clip(lower=0)
    too_much = rows.loc[explained.head(len(rows)) > (1 + TOLERANCE) * rows[stack.total], "label"]
    notes = [f"{hidden} more recipes are in the tables."] if hidden > 0 else []
    if len(too_much):
        notes.append(f"The parts add up to more than the total of: {', '.join(too_much)}.")
    inches = 0.95 + row_inches(map(_name, rows["label"])) * len(rows)
    figure, panel = canvas(comparison, title=stack.title, inches=inches, notes=notes, timed=timed)
    axes = panel.subplots()
    shown = rest.where(rest > TOLERANCE * rows[stack.total])
    ends = _segments(axes, rows, stack, shown)
    unit = stack.unit_of(float(rows[stack.total].max()))
    _decorate(axes, rows, stack, ends, unit)
    panel.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


def _segments(axes: Axes, rows: pd.DataFrame, stack: Stack, rest: pd.Series[float]) -> list[float]:
    """Draw the stacked segments of rows that have a total; return where each bar ends."""
    unit = stack.unit_of(float(rows[stack.total].max()))[1]
    measured = rows[stack.total].notna()
    ends = pd.Series(0.0, index=rows.index)
    known = [(name, values, colour, "") for (name, values), colour in zip(stack.parts.items(), COLOURS, strict=False)]
    other = [("rest (not split)", rest, "#f2f2f2", "////")]
    after = [(name, values, "white", "..") for name, values in stack.after.items()]
    for name, values, colour, hatch in known + other + after:
        widths = (values.head(len(rows)) / unit).where(measured).fillna(0.0)
        drawn = widths > 0
        if not drawn.any():
            continue
        axes.barh(
            rows.index[drawn],
            widths[drawn],
            left=ends[drawn],
            height=0.68,
            color=colour,
            hatch=hatch,
            label=name,
            edgecolor="#555555" if hatch else "white",
            linewidth=0.3,
        )
        ends += widths
    return [float(end) for end in ends]


def _decorate(axes: Axes, rows: pd.DataFrame, stack: Stack, ends: list[float], unit: tuple[str, float]) -> None:
    """Totals, ratios and reasons beside the bars; recipes as tick labels, the first on top."""
    longest = max(ends)
    for index, (total, ratio, status) in enumerate(
        zip(rows[stack.total], rows[stack.ratio], rows["status"], strict=True)
    ):
        reason = stack.missing_text.format(status=status) if math.isnan(total) else ""
        text = reason or f"{amount(total, unit)}" + ("" if math.isnan(ratio) else f"  {times(ratio)}")
        axes.text(
            ends[index] + 0.015 * longest,
            index,
            text,
            va="center",
            fontsize=6.5,
            color=GREY if reason else "k",
        )
    low, high = rows[f"{stack.total}_low"] / unit[1], rows[f"{stack.total}_high"] / unit[1]
    several = rows["num_ok"] > 1
    axes.hlines(rows.index[several] + 0.42, low[several], high[several], color="k", linewidth=0.8)
    axes.set_yticks(rows.index, list(map(_name, rows["label"])))
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, 1.6 * longest)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel(unit[0])
    sns.despine(ax=axes, left=True)
