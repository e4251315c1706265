"""How every figure looks, and how it is written: one column wide, the same bytes every time.

3.5 inches is a column of a two-column paper; nothing is smaller than 6 points there. A recipe keeps its
colour and marker in all figures of a sweep; nine colours told apart by colour-blind readers and seven markers
repeat together only after 63 recipes. Figures are built without pyplot: no display, no global state.
"""

from __future__ import annotations

import functools
import hashlib
import io
import re
import textwrap
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec

import matplotlib as mpl
import seaborn as sns
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from report.errors import ReportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

    from report.frames.compare import Comparison

WIDTH: Final = 3.5
NOTE_SIZE: Final = 6.0
NOTE_CHARACTERS: Final = 76
LINE_INCHES: Final = 0.108
ONE_LINE: Final = 0.19
TWO_LINES: Final = 0.235
MAX_FAILURES: Final = 4
RANGE: Final = "whiskers and bands lowest–highest"
GREY: Final = "#666666"
PALETTE: Final = (
    "#0173b2",
    "#de8f05",
    "#029e73",
    "#d55e00",
    "#cc78bc",
    "#7a4a2b",
    "#56b4e9",
    "#b3a100",
    "#222222",
)
MARKERS: Final = ("o", "s", "^", "D", "v", "P", "X")
RC: Final[dict[str, Any]] = {
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.2,
    "legend.columnspacing": 1.0,
    "axes.titlelocation": "left",
    "axes.linewidth": 0.6,
    "axes.grid": True,
    "grid.linewidth": 0.4,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,
    "svg.hashsalt": "tunematrix",
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial"],
}
# What is not written about the file, by its ending.
METADATA: Final[dict[str, dict[str, Any]]] = {
    "png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None},
}  # fmt: skip

Arguments = ParamSpec("Arguments")


class EntryStyle(NamedTuple):
    """Colour and marker of one entry."""

    colour: str
    marker: str


def house_style() -> Any:
    """Return every setting of matplotlib, so that a user's own configuration changes nothing."""
    defaults: dict[Any, Any] = dict(mpl.rcParamsDefault)
    return {key: v for key, v in (defaults | sns.axes_style("ticks") | RC).items() if not key.startswith("backend")}


def styled(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Run a figure function under the house style, whatever the caller's settings are."""

    @functools.wraps(draw)
    def wrapper(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with mpl.rc_context(house_style()):
            figure = draw(*args, **kwargs)
            freeze_layout(figure)
            return figure

    return wrapper


def freeze_layout(figure: Figure) -> None:
    """Lay the figure out once and round the result: the solver's last digits differ from call to call."""
    if engine := figure.get_layout_engine():
        engine.execute(figure)
    figure.set_layout_engine(None)  # "none" would leave a placeholder, for which saving draws everything once more
    for axes in figure.axes:
        axes.set_position(Bbox.from_bounds(*(round(float(edge), 4) for edge in axes.get_position().bounds)))


def entry_styles(comparison: Comparison) -> dict[str, EntryStyle]:
    """Colour and marker per label, by place in the table; controls are grey."""
    found, index = {}, 0
    for label, kind in zip(comparison.entries["label"], comparison.entries["kind"], strict=True):
        if kind == "control":
            found[label] = EntryStyle(GREY, "")
        else:
            found[label] = EntryStyle(PALETTE[index % len(PALETTE)], MARKERS[index % len(MARKERS)])
            index += 1
    return found


def wrap_label(label: str, width: int = 22) -> str:
    """Fit a label on two lines, broken at a plus or comma where possible, cut at such a place if longer."""
    if len(label) <= width:
        return label
    ends = [[position + 1 for position, sign in enumerate(label) if sign in signs] for signs in ("+,", " _(=")]
    for positions in ends:
        if found := [position for position in positions if position <= width and len(label) - position <= width]:
            return label[: found[-1]] + "\n" + label[found[-1] :].strip()
    if len(label) <= 2 * width:
        return label[:width] + "\n" + label[width:].strip()
    head = max((position for position in ends[0] if position < width), default=width - 1)
    tail = min((position for position in ends[0] if len(label) - position < width), default=len(label) - width + 1)
    return f"{label[:head]}\n…{label[tail:]}"


def row_inches(labels: Iterable[str]) -> float:
    """Height of the rows of a figure with these (already fitted) labels."""
    return TWO_LINES if any("\n" in label for label in labels) else ONE_LINE


def setting_note(comparison: Comparison, spread: str = RANGE) -> str:
    """One line: what ran where, how often, and what shows the spread of repeats."""
    setting = comparison.setting
    where = setting["gpu_name"] or setting["device"]
    number = setting["num_threads"] if setting["device"] == "cpu" else ""
    threads = f", {number} thread{'' if number == '1' else 's'}" if number else ""
    seeds = comparison.runs["seed"].nunique()
    repeats = f"mean of {seeds} seeds{', ' if spread else ''}{spread}" if seeds > 1 else "one seed"
    parts = (setting["model"], setting["dataset"], f"{where}{threads}")
    batch = (f"batch {setting['batch_size']}",) if setting["batch_size"] else ()
    return " · ".join(part for part in (*parts, *batch, repeats) if part)


def failure_note(comparison: Comparison) -> str:
    """Name the runs that did not finish, the first few with their status."""
    failed = comparison.failures
    several = comparison.runs["seed"].nunique() > 1
    names = [
        f"{row.entry}{f' seed {row.seed:g}' if several else ''} ({row.status})"
        for row in failed.head(MAX_FAILURES).itertuples()
    ]
    if len(failed) > MAX_FAILURES:
        names.append(f"{len(failed) - MAX_FAILURES} more in the tables")
    return f"Did not finish: {', '.join(names)}." if names else ""


def disturbance_note(comparison: Comparison) -> str:
    """Name the runs whose times are left out, the first few."""
    rows = comparison.disturbed
    names = [f"{row.entry} seed {row.seed:g}" for row in rows.head(MAX_FAILURES).itertuples()]
    if len(rows) > MAX_FAILURES:
        names.append(f"{len(rows) - MAX_FAILURES} more in the summary")
    return f"Times left out, as others disturbed the run: {', '.join(names)}." if names else ""


def canvas(
    comparison: Comparison,
    *,
    title: str,
    inches: float,
    notes: Sequence[str] = (),
    spread: str = RANGE,
    timed: bool = False,
) -> tuple[Figure, SubFigure]:
    """Make a figure and its panel, `inches` high, for the axes; the notes stand in a second panel below.

    timed: the figure shows times, so it says whose are left out.
    """
    texts = [setting_note(comparison, spread), *notes, failure_note(comparison)]
    texts += [disturbance_note(comparison)] if timed else []
    lines = [line for text in texts if text for line in textwrap.wrap(text, NOTE_CHARACTERS)]
    below = LINE_INCHES * len(lines) + 0.06
    figure = Figure(figsize=(WIDTH, inches + below), layout="constrained")
    panel, footer = figure.subfigures(2, 1, squeeze=False, height_ratios=(inches, below), hspace=0)[:, 0]
    panel.suptitle(title, x=0.02, ha="left", fontsize=8, fontweight="bold")
    footer.text(0.02, 0.04 / below, "\n".join(lines), fontsize=NOTE_SIZE, color=GREY, va="bottom")
    return figure, panel


def draw_placeholder(axes: Axes, reason: str) -> None:
    """Turn a panel into a sentence that says why nothing is drawn."""
    axes.set_axis_off()
    text = textwrap.fill(f"Nothing to draw: {reason}.", 48)
    axes.text(0.5, 0.5, text, ha="center", va="center", transform=axes.transAxes, color=GREY)


def as_bytes(figure: Figure, ending: str) -> bytes:
    """A figure as the bytes of a file of one format; equal data gives equal bytes."""
    file = io.BytesIO()
    with mpl.rc_context(house_style()):
        figure.savefig(file, format=ending, dpi=150, metadata=METADATA[ending])
    return _named_by_shape(file.getvalue()) if ending == "svg" else file.getvalue()


def _named_by_shape(svg: bytes) -> bytes:
    """Name clip paths by their shapes as written: matplotlib's ids depend on digits that differ from call to call."""
    for name, shape in re.findall(rb'<clipPath id="(\w+)">(.*?)</clipPath>', svg, re.DOTALL):
        svg = svg.replace(name, b"p" + hashlib.sha256(shape).hexdigest()[:10].encode())
    return svg


def save(figure: Figure, folder: Path, name: str, endings: Sequence[str] = tuple(METADATA)) -> list[Path]:
    """Write NAME.png (150 dpi), NAME.svg and NAME.pdf (text stays text)."""
    paths = [folder / f"{name}.{ending}" for ending in endings]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, ending in zip(paths, endings, strict=True):
            path.write_bytes(as_bytes(figure, ending))
    except OSError as error:
        raise ReportError(f"{folder}: cannot write figures ({error.strerror}); copy the sweep elsewhere") from error
    return paths
