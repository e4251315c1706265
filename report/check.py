"""`python -m report --check`: whether what is committed is what its CSVs say today.

Texts and figures are made again in memory and compared byte by byte. Only what is there is looked at: a sweep without
figures lacks none. paper.pdf is left out, as it needs LaTeX; its .tex and figures are compared.
"""

from __future__ import annotations

import io
from collections import defaultdict
from functools import partial
from typing import TYPE_CHECKING, Final

from report.figures.catalogue import ACROSS_SETTINGS, FIGURES
from report.figures.style import render
from report.frames.compare import compare
from report.frames.results import load
from report.page.build import page
from report.page.data import page_data
from report.paper.build import compose
from report.text.tables import update_tables
from report.write import FOLDER, pages, plots_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

    from report.frames.compare import Comparison

PAPER: Final = "paper/figures"
MARKDOWN: Final = ("README.md", "docs/*.md")


def stale(root: Path, folders: list[Path]) -> Iterator[str]:
    """Name each stale file of these sweeps, or of all under `root`/results and the tables in MARKDOWN."""
    for folder in folders or sorted(found.parent for found in root.glob("results/*/runs.csv")):
        yield from _stale_in(folder)
    for file in [] if folders else [path for pattern in MARKDOWN for path in sorted(root.glob(pattern))]:
        if update_tables(file, write=False):
            yield f"{file}: its tables are stale; python -m report tables {file}"


def _stale_in(folder: Path) -> Iterator[str]:
    results = load(folder)
    comparisons = compare(results)
    made: dict[str, tuple[Callable[[], str], str]] = {
        name: (partial(str, text), "summary") for name, text in pages(folder, comparisons).items()
    }
    made["report.html"] = lambda: page(page_data(results, comparisons)), "html"
    made["paper/paper.tex"] = lambda: compose(folder)[0], "paper"
    for name, (make, command) in made.items():
        if (folder / name).is_file() and (folder / name).read_text(encoding="utf-8") != make():
            yield f"{folder / name} is stale; python -m report {command} {folder}"
    yield from _stale_figures(folder, comparisons)


def _stale_figures(folder: Path, comparisons: list[Comparison]) -> Iterator[str]:
    """Each figure is drawn once for all its files; those of the paper are numbered by setting."""
    known: dict[Path, Callable[[], Figure]] = {
        folder / FOLDER / plot.name: plot.draw for plot in plots_of(comparisons, (*FIGURES, *ACROSS_SETTINGS))
    }
    for number, comparison in enumerate(comparisons, start=1):
        known |= {folder / PAPER / f"{name}-{number}": partial(draw, comparison) for name, draw in FIGURES.items()}
    files: dict[Path, list[Path]] = defaultdict(list)
    for file in sorted([*(folder / FOLDER).glob("*.*"), *(folder / PAPER).glob("*.pdf")]):
        files[file.with_suffix("")].append(file)
    for place, same in files.items():
        if place not in known:
            yield from (f"{file} is no figure of this sweep any more; delete it" for file in same)
            continue
        figure = known[place]()
        command = "figures" if place.parent.name == FOLDER and place.parent.parent == folder else "paper"
        for file in same:
            if file.read_bytes() != _bytes(figure, file.suffix[1:]):
                yield f"{file} is stale; python -m report {command} {folder}"


def _bytes(figure: Figure, ending: str) -> bytes:
    file = io.BytesIO()
    render(figure, file, ending)
    return file.getvalue()
