"""Pages, papers and figures that are not kept beside their sweep: a hash stands for each, in SWEEP/../rendered.sha256.

What is drawn of a sweep takes ten times the room of its CSVs and can be made again at any time. Its hashes, in the
format of sha256sum, tell `--check` when another page, paper or figure would come out than the one that somebody looked
at. Of a figure it is the hash of the SVG, which holds everything and is written quickest.
"""

from __future__ import annotations

import hashlib
import re
from functools import partial
from typing import TYPE_CHECKING, Final

from report.errors import ReportError
from report.figures.catalogue import ACROSS_SETTINGS, FIGURES
from report.figures.style import as_bytes
from report.files import write_atomic
from report.frames.compare import compare
from report.frames.results import load
from report.page.build import NAME as PAGE
from report.page.build import page
from report.page.data import page_data
from report.paper.build import compose
from report.write import FOLDER, Plot, plots_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from report.frames.compare import Comparison
    from report.frames.results import Results

NAME: Final = "rendered.sha256"
PAPER: Final = "paper/paper.tex"
LINE: Final = re.compile(r"([0-9a-f]{64})  ([^/]+/.+)")


def makers(results: Results, comparisons: list[Comparison]) -> dict[str, Callable[[], bytes]]:
    """What makes a sweep's page, its paper and each figure, by the file's name in the sweep's folder."""

    def page_text() -> bytes:
        return page(page_data(results, comparisons)).encode()

    def paper_text() -> bytes:
        return compose(results.folder)[0].encode()

    def drawn(plot: Plot) -> bytes:
        return as_bytes(plot.draw(), "svg")

    plots = plots_of(comparisons, (*FIGURES, *ACROSS_SETTINGS))
    return {PAGE: page_text, PAPER: paper_text, **{f"{FOLDER}/{plot.name}.svg": partial(drawn, plot) for plot in plots}}


def digest(content: bytes) -> str:
    """SHA-256, as sha256sum prints it."""
    return hashlib.sha256(content).hexdigest()


def hashes_of(folder: Path) -> dict[str, str]:
    """Known hashes of a sweep by file name; none where nobody wrote any. ReportError for a damaged line."""
    own = f"{folder.resolve().name}/"
    return {name.removeprefix(own): known for name, known in _read(_file(folder)).items() if name.startswith(own)}


def write_hashes(folder: Path) -> list[str]:
    """Make page, paper and figures of a sweep and write their hashes; one line that says so."""
    results, own = load(folder), f"{folder.resolve().name}/"
    new = {own + name: digest(make()) for name, make in makers(results, compare(results)).items()}
    known = {name: known for name, known in _read(_file(folder)).items() if not name.startswith(own)}
    text = "".join(f"{known}  {name}\n" for name, known in sorted((known | new).items()))
    return [f"{write_atomic(_file(folder), text)}: {len(new)} hashes of {folder}"]


def _file(folder: Path) -> Path:
    return folder.parent / NAME if folder.name else folder.resolve().parent / NAME


def _read(path: Path) -> dict[str, str]:
    found = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if not (match := LINE.fullmatch(line)):
            raise ReportError(f"{path}: line {number} is no hash and SWEEP/FILE; delete it and run report hashes SWEEP")
        found[match[2]] = match[1]
    return found
