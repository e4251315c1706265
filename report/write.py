"""Turns a sweep folder into files: the only place of this package that decides what is written where."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pandas as pd

from report import ReportError
from report.compare import compare
from report.figures import FIGURES
from report.results import load
from report.style import save
from report.summary import heading, summary

if TYPE_CHECKING:
    from report.compare import Comparison

MAX_DRAWN: Final = 4


def write(folder: str | Path, command: str = "all") -> list[str]:
    """Write figures, summary or both (`all`) into a sweep folder; return one line per thing written."""
    folder = Path(folder)
    comparisons = compare(load(folder))
    lines = []
    if command != "summary":
        for comparison in comparisons[:MAX_DRAWN]:
            for name, draw in FIGURES.items():
                save(draw(comparison), folder / "figures", name + _suffix(comparison, comparisons))
        drawn = min(len(comparisons), MAX_DRAWN) * len(FIGURES)
        lines.append(f"{folder / 'figures'}: {drawn} figures, PNG, SVG and PDF")
        if len(comparisons) > MAX_DRAWN:
            lines.append(f"drawn: the {MAX_DRAWN} largest of {len(comparisons)} settings; all are in the summary")
    if command != "figures":
        lines += [str(_write_comparisons(folder, comparisons)), str(_write_summary(folder, comparisons))]
    return lines


def _suffix(comparison: Comparison, comparisons: list[Comparison]) -> str:
    """Return the end of a file name that tells settings apart; empty when there is one setting."""
    words = re.sub(r"[^A-Za-z0-9]+", "-", heading(comparison, comparisons)).strip("-").lower()
    return f"-{comparisons.index(comparison) + 1}-{words}" if len(comparisons) > 1 else ""


def _write_comparisons(folder: Path, comparisons: list[Comparison]) -> Path:
    """Write comparisons.csv: every recipe and run against the baseline of its setting."""
    frames = [comparison.paired for comparison in comparisons if len(comparison.paired)]
    frame = pd.concat(frames) if frames else comparisons[0].paired
    return _replace(folder / "comparisons.csv", frame.to_csv(index=False, float_format="%.6g", lineterminator="\n"))


def _write_summary(folder: Path, comparisons: list[Comparison]) -> Path:
    """Write summary.md, linking the figures that exist."""
    figures = {}
    for comparison in comparisons:
        names = [name + _suffix(comparison, comparisons) for name in FIGURES]
        found = [name for name in names if (folder / "figures" / f"{name}.png").is_file()]
        figures[heading(comparison, comparisons)] = found
    return _replace(folder / "summary.md", summary(folder.resolve().name, comparisons, figures))


def _replace(path: Path, text: str) -> Path:
    """Write a file whole or not at all."""
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except OSError as error:
        raise ReportError(f"{path}: cannot be written ({error.strerror}); copy the sweep elsewhere") from error
    return path
