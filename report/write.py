"""Turns a sweep folder into files: the only place of this package that decides what is written where."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pandas as pd

from report.figures.catalogue import ACROSS_SETTINGS, BASIC, BONUS, FIGURES
from report.figures.style import save
from report.files import outputs_of, write_atomic
from report.frames.compare import compare
from report.frames.results import load
from report.text.summary import heading, summary

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from matplotlib.figure import Figure

    from report.frames.compare import Comparison

MAX_DRAWN: Final = 4
DRAWN: Final = {"all": BASIC, "bonus": BONUS, "figures": (*FIGURES, *ACROSS_SETTINGS), "summary": ()}
FOLDER: Final = "figures"


class Plot(NamedTuple):
    """A figure of a sweep: its file's name without ending, and what draws it."""

    name: str
    draw: Callable[[], Figure]


def write(folder: str | Path, command: str = "all", out: Path | None = None) -> list[str]:
    """Write what a command of DRAWN stands for into the sweep's folder, or one in `out`; one line per thing written."""
    folder = Path(folder)
    comparisons = compare(load(folder))
    place = outputs_of(folder, out)
    plots = plots_of(comparisons, DRAWN[command])
    for plot in plots:
        save(plot.draw(), place / FOLDER, plot.name)
    lines = [f"{place / FOLDER}: {len(plots)} figures, PNG, SVG and PDF"] if plots else []
    if plots and len(comparisons) > MAX_DRAWN:
        lines.append(f"drawn: the {MAX_DRAWN} largest of {len(comparisons)} settings; all are in the summary")
    if command == "figures":
        return lines
    texts = pages(folder, comparisons, {path.name for path in (place / FOLDER).glob("*.*")})
    return [*lines, *(str(write_atomic(place / name, text)) for name, text in texts.items())]


def plots_of(comparisons: Sequence[Comparison], names: Sequence[str]) -> list[Plot]:
    """Figures of these names: one for each of the largest settings, or one over all of them."""
    each = [
        Plot(name + _suffix(comparison, comparisons), partial(FIGURES[name], comparison))
        for comparison in comparisons[:MAX_DRAWN]
        for name in names
        if name in FIGURES
    ]
    return each + [Plot(name, partial(ACROSS_SETTINGS[name], comparisons)) for name in names if name in ACROSS_SETTINGS]


def _suffix(comparison: Comparison, comparisons: Sequence[Comparison]) -> str:
    """Return the end of a file name that tells settings apart; empty when there is one setting."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", heading(comparison, comparisons)).strip("-").lower()
    return f"-{list(comparisons).index(comparison) + 1}-{words}" if len(comparisons) > 1 else ""


def pages(folder: Path, comparisons: Sequence[Comparison], there: Collection[str]) -> dict[str, str]:
    """Texts by file name: comparisons.csv, and summary.md, which links the figures whose files are `there`."""
    frames = [comparison.paired for comparison in comparisons if len(comparison.paired)]
    frame = pd.concat(frames) if frames else comparisons[0].paired
    figures = {
        heading(comparison, comparisons): [name + _suffix(comparison, comparisons) for name in FIGURES]
        + (list(ACROSS_SETTINGS) if comparison is comparisons[-1] else [])
        for comparison in comparisons
    }
    shown = {
        title: [f"{name}.{'svg' if f'{name}.svg' in there else 'png'}" for name in names if f"{name}.png" in there]
        for title, names in figures.items()
    }
    return {
        "comparisons.csv": frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"),
        "summary.md": summary(folder.resolve().name, comparisons, shown),
    }
