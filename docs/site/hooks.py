"""Pages of the site that are written elsewhere: sections of README and CONTRIBUTING, sweeps, decisions.

Links are rewritten from where a text stands to where its page is. What the site does not have (code, folders) loses its
link and keeps its words. Figures, tables, notebooks, pages and papers that a page names are taken along.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

from mkdocs.structure.files import File, Files

ROOT: Final = Path(__file__).resolve().parents[2]
# page: file, and the headings (of the second level) that it takes; "" is what stands above the first.
SECTIONS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "index.md": ("README.md", ("", "What comes out", "Licence and citation")),
    "quickstart.md": ("README.md", ("Quickstart",)),
    "reports.md": ("README.md", ("From CSVs to what people read",)),
    "adapters.md": ("README.md", ("Adapters compared",)),
    "rates.md": ("README.md", ("Each at its best rate",)),
    "bonus.md": ("README.md", ("Fed and updated otherwise",)),
    "fit.md": ("README.md", ("Will it fit?",)),
    "recipes.md": ("README.md", ("Recipes",)),
    "own-model.md": ("README.md", ("Use a recipe on your own model", "In your own Trainer or Accelerate loop")),
    "vqa.md": ("README.md", ("Train on VQA v2",)),
    "weights.md": ("README.md", ("Use the weights",)),
    "measured.md": ("README.md", ("What is measured, and how",)),
    "speed.md": ("README.md", ("How fast it is",)),
    "gpu.md": ("README.md", ("On a GPU",)),
    "adding.md": ("CONTRIBUTING.md", ("Add a strategy in one file",)),
    "contributing.md": ("CONTRIBUTING.md", ("", "The rooms", "House style")),
}
TAKEN: Final = (".png", ".svg", ".csv", ".pdf", ".html", ".ipynb")
LINK: Final = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
CSS: Final = """.md-grid {max-width: 76rem}
.md-typeset table:not([class]) {display: block; overflow-x: auto; font-size: .68rem}
.md-typeset table:not([class]) :is(th, td) {padding: .45em .8em; min-width: 0; vertical-align: middle}
.md-typeset table:not([class]) td[style*="right"] {white-space: nowrap}
.md-typeset table:not([class]) code {white-space: nowrap}
@media (max-width: 44.9em) {
  .md-typeset table:not([class]) td:first-child code {white-space: normal; overflow-wrap: anywhere}
  .md-typeset table:not([class]) td:first-child {min-width: 9em; max-width: 38vw}
}
"""


class Known(NamedTuple):
    """What links may lead to: pages by file of the repository, pages by anchor, and other files as they are found."""

    homes: dict[str, str]
    anchors: dict[str, str]
    files: set[str]


def on_config(config: Any) -> Any:
    """List sweeps and decisions in the navigation."""
    for entry in config.nav:
        if "Sweeps" in entry:
            pages = {name: f"results/{name}/summary.md" for name in _sweeps()}
            pages |= {f"{Path(source).parent.name}: findings": source for source in _findings()}
            entry["Sweeps"] = [{name: pages[name]} for name in sorted(pages)]
        if "Decisions" in entry:
            entry["Decisions"] = sorted(f"decisions/{path.name}" for path in (ROOT / "docs/decisions").glob("*.md"))
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add every page that is written elsewhere, and the figures that any page shows."""
    texts = {page: (source, _taken(source, heads)) for page, (source, heads) in SECTIONS.items()}
    texts |= {f"results/{name}/summary.md": _whole(f"results/{name}/summary.md") for name in _sweeps()}
    texts |= {source: _whole(source) for source in _findings()}
    own = [file.src_uri for file in files.documentation_pages()]
    texts |= {uri: _whole(f"docs/{uri}") for uri in own}
    homes = {f"docs/{page}": page for page in own} | {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
    homes |= {source: page for page, (source, _) in texts.items() if page.startswith("results/")}
    anchors = {_anchor(head): page for page, (_, heads) in SECTIONS.items() for head in heads if head}
    known = Known(homes, anchors, set())
    for page, (source, text) in texts.items():
        written = _relinked(text, source, page, known)
        if old := files.get_file_from_path(page):
            files.remove(old)
        files.append(File.generated(config, page, content=written))
    for place in sorted(known.files):
        if not place.startswith("docs/"):  # those of docs/ are there
            files.append(File.generated(config, place, abs_src_path=str(ROOT / place)))
    files.append(File.generated(config, "site.css", content=CSS))
    return files


def _sweeps() -> list[str]:
    return sorted(path.parent.name for path in (ROOT / "results").glob("*/summary.md") if path.parent.name != "local")


def _findings() -> list[str]:
    return sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "results").glob("*/findings.md"))


def _whole(source: str) -> tuple[str, str]:
    return source, (ROOT / source).read_text(encoding="utf-8")


def _taken(source: str, heads: tuple[str, ...]) -> str:
    """The sections of a file under these headings, the first of them as the page's title."""
    pieces = re.split(r"^## (.*)$", (ROOT / source).read_text(encoding="utf-8"), flags=re.MULTILINE)
    sections = {"": pieces[0], **dict(zip(pieces[1::2], pieces[2::2], strict=True))}
    if missing := [head for head in heads if head not in sections]:
        raise SystemExit(f"{source} has no section {missing[0]!r}; docs/site/hooks.py names it")
    title = "" if heads[0] == "" else f"# {heads[0]}\n"
    first, *others = heads
    return title + sections[first] + "".join(f"\n## {head}\n{sections[head]}" for head in others)


def _anchor(head: str) -> str:
    return re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-")


def _relinked(text: str, source: str, page: str, known: Known) -> str:
    """Point the links of `source` to pages of the site, from `page`; note the files it names."""

    def pointed(match: re.Match[str]) -> str:
        mark, words, target = match.groups()
        words = LINK.sub(pointed, words)  # a picture that is a link
        if re.match(r"[a-z]+:", target):
            return match[0]
        path, _, anchor = target.partition("#")
        if not path:
            there = known.anchors.get(anchor) if source in {"README.md", "CONTRIBUTING.md"} else page
            return f"[{words}]({_from(page, there)}#{anchor})" if there and there != page else match[0]
        place = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if place.endswith(TAKEN) and (ROOT / place).is_file():
            known.files.add(place)
            return f"{mark}[{words}]({_from(page, place.removeprefix('docs/'))})"
        if place == "README.md" and anchor in known.anchors:
            return f"[{words}]({_from(page, known.anchors[anchor])}#{anchor})"
        home = known.homes.get(place) or known.homes.get(f"{place}/summary.md")
        return f"[{words}]({_from(page, home)}{'#' + anchor if anchor else ''})" if home else words

    return LINK.sub(pointed, text)


def _from(page: str, place: str) -> str:
    return posixpath.relpath(place, posixpath.dirname(page) or ".")
