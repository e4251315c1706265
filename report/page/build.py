"""One self-contained HTML page of a sweep: every run, sorted, filtered, plotted, compared, with its full record.

Python reads the files, decides and computes: what may be compared, means, intervals. The browser only shows, sorts
and filters, so that a number on the page is the number of the summary. The page holds its data, its plots' library
and its pictures; it opens from disk and asks no network for anything. Text from data never becomes markup: the page's
script writes it as text, and the data lie in a block of JSON without a single `<`.
"""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path
from typing import Any, Final

from report.figures.style import GREY, PALETTE
from report.files import outputs_of, write_atomic
from report.frames.compare import compare
from report.frames.results import load
from report.page.data import page_data

NAME: Final = "report.html"
HERE: Final = Path(__file__).resolve().parent
MIB: Final = 2**20


def write_page(folder: Path, out: Path | None = None) -> list[str]:
    """Write report.html in FOLDER or OUT/<its name>; one line for it and one for each thing that had to be left out.

    The page links records as runs/…, so beside a page elsewhere `runs` leads to those of FOLDER.
    """
    results = load(folder)
    data = page_data(results, compare(results))
    target = outputs_of(folder, out)
    path = target / NAME
    text = page(data)
    write_atomic(path, text)
    if not (target / "runs").exists() and not (target / "runs").is_symlink() and (folder / "runs").is_dir():
        (target / "runs").symlink_to(os.path.relpath(folder / "runs", target))
    return [f"{path}: {len(text.encode()) / MIB:.1f} MiB, one page", *(f"  {note}" for note in data["notes"])]


def page(data: dict[str, Any]) -> str:
    """The page with these data, as text."""
    import jinja2

    loader = jinja2.FileSystemLoader(HERE)
    templates = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    colours = {f"colour_{index}": colour for index, colour in enumerate(PALETTE)}
    return templates.get_template("page.html.j2").render(
        title=data["title"],
        data=safe(data),
        bundle=_vega(),
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        grey=GREY,
        **colours,
    )


@functools.cache
def _vega() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, from the installed package."""
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", r"<\/script").replace("<!--", r"<\!--")


def safe(value: Any) -> str:
    """JSON that cannot end the script block it stands in."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("&", r"\u0026").replace("<", r"\u003c").replace(">", r"\u003e")
