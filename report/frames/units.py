"""Numbers as people read them: one place decides units, rounding and how a missing value looks."""

from __future__ import annotations

import math
from typing import Final

MISSING: Final = "–"
BYTE_UNITS: Final = (("GiB", 2.0**30), ("MiB", 2.0**20), ("KiB", 2.0**10))
TIME_UNITS: Final = (("h", 3600.0, 3 * 3600.0), ("min", 60.0, 600.0))  # name, size, used from
SCORE_NAMES: Final = {"vqa_accuracy": "VQA accuracy", "accuracy": "Accuracy"}


def byte_unit(largest: float) -> tuple[str, float]:
    """Return unit and divisor that suit an axis reaching up to `largest` bytes."""
    return next(((name, size) for name, size in BYTE_UNITS if largest >= size), ("B", 1.0))


def time_unit(largest: float) -> tuple[str, float]:
    """Return unit and divisor that suit an axis reaching up to `largest` seconds."""
    return next(((name, size) for name, size, start in TIME_UNITS if largest >= start), ("s", 1.0))


def energy_unit(largest: float) -> tuple[str, float]:
    """Return unit and divisor that suit an axis reaching up to `largest` joules."""
    return next(((name, size) for name, size in (("MJ", 1e6), ("kJ", 1e3)) if largest >= size), ("J", 1.0))


def step_unit(largest: float) -> tuple[str, float]:
    """Return unit and divisor that suit an axis reaching up to `largest` seconds of one training step."""
    return ("s", 1.0) if largest >= 1 else ("ms", 1e-3)


def three_digits(value: float) -> str:
    """Three significant digits without an exponent: 0.123, 12.3, 123, 1234."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def amount(value: float, unit: tuple[str, float]) -> str:
    """`value` (bytes or seconds) in `unit`, or a dash."""
    return MISSING if math.isnan(value) else f"{three_digits(value / unit[1])} {unit[0]}"


def percent(share: float) -> str:
    """Write a share of 0 to 1 as percent with one decimal, or a dash."""
    return MISSING if math.isnan(share) else f"{100 * share:.1f} %"


def times(ratio: float) -> str:
    """Write a ratio as 0.87×, or a dash."""
    return MISSING if math.isnan(ratio) else f"{ratio:.{0 if ratio >= 100 else 1 if ratio >= 10 else 2}f}×"  # noqa: PLR2004 - digits


def count(value: float) -> str:
    """Write a count with K, M or G, or a dash: 812, 40.1 K, 1.25 M."""
    if math.isnan(value):
        return MISSING
    name, size = next(((n, s) for n, s in (("G", 1e9), ("M", 1e6), ("K", 1e3)) if value >= s), ("", 1.0))
    return f"{three_digits(value / size)} {name}" if name else f"{value:.0f}"


def cell(value: object) -> str:
    """Write one value of a CSV as text: numbers without needless digits, missing ones empty."""
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:g}"
    return str(value)


def points(difference: float) -> str:
    """Write a difference of shares in percentage points, with its direction in words."""
    size = f"{abs(100 * difference):.1f}"
    if size == "0.0":
        return "level with"
    return f"{size} point{'' if size == '1.0' else 's'} {'above' if difference > 0 else 'below'}"


def code(label: str) -> str:
    """Write a recipe's name as Markdown code; nothing in it is markup, and a bar would end a table's cell."""
    return "`" + label.replace("`", "'").replace("|", "\\|") + "`"
