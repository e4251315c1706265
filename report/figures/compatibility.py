"""Which strategies go together, as one picture: docs/compatibility.csv, a cell for each pair that was tried."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Final

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patches import Patch

from report.errors import ReportError
from report.figures.style import save, styled

if TYPE_CHECKING:
    from pathlib import Path

STATUSES: Final = {
    "ok": "#8fbfe0", "refused": "#d55e00", "unverified": "#cccccc", "inert": "#cc78bc", "crashed": "#222222",
}  # fmt: skip
REQUIRED_COLUMNS: Final = ("one", "other", "status")
WIDTH_INCHES: Final = 7.16  # inches: both columns of a two-column paper
MARGIN_INCHES: Final = 1.2
PAD_INCHES: Final = 0.12  # inches, for the longest names


def write_compatibility(file: Path) -> list[str]:
    """Draw the pairs of a CSV beside it, as PNG, SVG and PDF; one line for what was written."""
    try:
        with file.open(encoding="utf-8", newline="") as text:
            rows = list(csv.DictReader(text))
    except (OSError, UnicodeDecodeError) as error:
        raise ReportError(f"{file}: not readable as CSV ({error}); make compatibility writes one") from error
    if not rows or any(column not in rows[0] for column in REQUIRED_COLUMNS):
        raise ReportError(
            f"{file}: has no rows with {', '.join(REQUIRED_COLUMNS)}; make compatibility writes such a file"
        )
    pairs = {(row["one"], row["other"]): row["status"] for row in rows}
    return [f"{path}" for path in save(compatibility_matrix(pairs), file.parent, file.stem)]


@styled
def compatibility_matrix(pairs: dict[tuple[str, str], str]) -> Figure:
    """Draw a triangle of cells, coloured by what came of a pair; statuses that are not known are crashes."""
    names = sorted({name for pair in pairs for name in pair})
    indices, kinds = {name: index for index, name in enumerate(names)}, list(STATUSES)
    cells = np.full((len(names), len(names)), np.nan)
    for pair, status in pairs.items():
        one, other = sorted(indices[name] for name in pair)
        cells[other, one] = kinds.index(status if status in kinds else "crashed")
    high = MARGIN_INCHES + (WIDTH_INCHES - MARGIN_INCHES) / 61 * len(names)
    figure = Figure(
        figsize=(WIDTH_INCHES, max(high, 2.5)), layout=ConstrainedLayoutEngine(w_pad=PAD_INCHES, h_pad=PAD_INCHES)
    )
    axes = figure.subplots()
    edges = np.arange(len(names) + 1) - 0.5
    axes.pcolormesh(edges, edges, cells, cmap=ListedColormap(list(STATUSES.values())), vmin=-0.5, vmax=len(kinds) - 0.5,
                    edgecolors="white", linewidth=0.3, rasterized=True)  # fmt: skip
    axes.invert_yaxis()
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set_xticks(range(len(names)), names, fontsize=6, rotation=90)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    counts = {kind: list(pairs.values()).count(kind) for kind in kinds}
    keys = [Patch(color=STATUSES[kind], label=f"{kind}: {number:,} pairs") for kind, number in counts.items() if number]
    axes.legend(handles=keys, loc="upper right")
    axes.set_title("Which strategies go together: every pair, tried", fontweight="bold")
    return figure
