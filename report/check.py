"""`python -m report --check`: whether what is committed is what its CSVs say today.

Texts and figures are made again in memory and compared byte by byte. Only what is there is looked at: a sweep without
figures lacks none. Where a sweep has hashes (`report.rendered`), they hold its page, its paper and all its figures,
there or not. paper.pdf is left out, as it needs LaTeX; its .tex and figures are compared. Sweeps know nothing of each
other, and each takes seconds of one core: they are looked at in as many processes as there are cores, largest first.
"""

from __future__ import annotations

import os
import re
import signal
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TYPE_CHECKING, Final

from report.figures.catalogue import ACROSS_SETTINGS, FIGURES
from report.figures.style import as_bytes
from report.frames.compare import compare
from report.frames.results import load
from report.page.build import NAME as PAGE
from report.rendered import NAME as HASHES
from report.rendered import PAPER as TEX
from report.rendered import digest, hashes_of, makers
from report.text.tables import update_tables
from report.write import FOLDER, pages, plots_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from matplotlib.figure import Figure

    from report.frames.compare import Comparison

PAPER: Final = "paper/figures"
TEXTS: Final = {PAGE: "html", TEX: "paper"}
NAMED: Final = 3  # files in a line
SEVERAL: Final = 2
MARKDOWN: Final = ("README.md", "docs/*.md")


def stale(root: Path, folders: list[Path]) -> Iterator[str]:
    """Name each stale file of these sweeps, or of all under `root`/results and the tables in MARKDOWN."""
    yield from _stale_in_all(folders or sweeps(root))
    for file in [] if folders else [path for pattern in MARKDOWN for path in sorted(root.glob(pattern))]:
        if update_tables(file, write=False):
            yield f"{file}: its tables are stale; python -m report tables {file}"


def sweeps(root: Path) -> list[Path]:
    """Folders of the committed sweeps."""
    return sorted(found.parent for found in root.glob("results/*/runs.csv"))


def _stale_in_all(folders: list[Path]) -> Iterator[str]:
    """Look at each sweep in one of several processes, which Ctrl-C ends without a word; in the order of `folders`."""
    processes = min(os.cpu_count() or 1, len(folders))
    if processes < SEVERAL:
        yield from (line for folder in folders for line in _stale_in(folder))
        return
    quiet = (signal.SIGINT, signal.SIG_DFL)
    with ProcessPoolExecutor(processes, get_context("spawn"), initializer=signal.signal, initargs=quiet) as pool:
        largest_first = sorted(folders, key=lambda folder: -len(hashes_of(folder)))
        found = {folder: pool.submit(_lines_of, folder) for folder in largest_first}
        try:
            for folder in folders:
                yield from found[folder].result()
        finally:
            pool.shutdown(cancel_futures=True)


def _lines_of(folder: Path) -> list[str]:
    return list(_stale_in(folder))


def _stale_in(folder: Path) -> Iterator[str]:
    results = load(folder)
    comparisons = compare(results)
    for name, text in pages(folder, comparisons, _linked(folder / "summary.md")).items():
        if (folder / name).is_file() and (folder / name).read_text(encoding="utf-8") != text:
            yield f"{folder / name} is stale; python -m report summary {folder}"
    known, others = hashes_of(folder), []
    made = makers(results, comparisons)
    for name, make in made.items():
        command = TEXTS.get(name) if (folder / name).is_file() else None
        content = make() if command or known else b""
        if command and (folder / name).read_bytes() != content:
            yield f"{folder / name} is stale; python -m report {command} {folder}"
        if known and known.get(name) != digest(content):
            others.append(name)
    if others := [*others, *(name for name in known if name not in made)]:
        named = ", ".join(others[:NAMED]) + (f" and {len(others) - NAMED} more" if len(others) > NAMED else "")
        meant = f"look at it, then python -m report hashes {folder}"
        yield f"{folder}: what comes out is not what {folder.parent / HASHES} says ({named}); {meant}"
    yield from _stale_figures(folder, comparisons)


def _linked(summary: Path) -> set[str]:
    """Figures that the summary shows and that are there: one that was drawn later need not be in it."""
    text = summary.read_text(encoding="utf-8") if summary.is_file() else ""
    return {name for name in re.findall(r"\(figures/([^)]+)\)", text) if (summary.parent / FOLDER / name).is_file()}


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
            if file.read_bytes() != as_bytes(figure, file.suffix[1:]):
                yield f"{file} is stale; python -m report {command} {folder}"
