"""What may be said of each recipe against the baseline, as sentences and a table.

A verdict about recipes needs several seeds. With one, the page says so, and tells apart only the trained models that
are there; readers who want to choose a recipe must not take one for the other.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from report.frames.inference import ALPHA, BETTER, EQUAL, UNKNOWN, WORSE
from report.frames.paired import statements
from report.frames.units import MISSING, code

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pandas as pd

    from report.frames.compare import Comparison

VERDICT_PHRASES: Final = {
    EQUAL: "equal to {base} within 1 point",
    BETTER: "better than {base}",
    WORSE: "worse than {base}",
    UNKNOWN: "cannot be told from {base}",
}
HEADER: Final = "| recipe | seeds | difference in points | 95 % interval | p | p corrected | verdict |"


def verdict_lines(comparison: Comparison) -> list[str]:
    """Write the section of one comparison; empty where nothing was paired."""
    rows, base = statements(comparison.paired), comparison.baseline
    if rows.empty or base is None:
        return []
    recipes, runs = rows[rows["level"] == "recipe"], rows[rows["level"] == "run"]
    lines = [f"### Better, worse or equal to {code(base['label'])}", ""]
    if len(recipes):
        lines += [*_about_recipes(recipes, str(base["label"])), ""]
    if len(runs):
        lines += [*_about_runs(runs, str(base["label"])), ""]
    lines += [HEADER, "|---|---:|---:|---:|---:|---:|---|"]
    return [*lines, *(_row(row) for row in rows.to_dict("records")), ""]


def _about_recipes(rows: pd.DataFrame, base: str) -> list[str]:
    significant = rows[rows["p_holm"] < ALPHA]
    still = (
        f"{_names(significant)} still differ{'' if len(significant) > 1 else 's'}"
        if len(significant)
        else "no difference remains"
    )
    method = (
        f"Runs are paired by seed and question ({rows['num_questions'].max():,} questions). The interval allows for "
        f"other seeds and other questions. Better, worse and equal are each wrong in about {100 * ALPHA:.0f} % of "
        f"cases: of {len(rows)} comparisons, in about {ALPHA * len(rows):.1g}. Corrected for that (Holm), {still}."
    )
    return [method, "", *_by_verdict(rows, code(base))]


def _about_runs(rows: pd.DataFrame, base: str) -> list[str]:
    caution = (
        "One seed: whether a *recipe* is better or worse **cannot be told (one seed)**. What follows is about these "
        "trained models alone, over other questions; with another seed it may turn round."
    )
    return [caution, "", *_by_verdict(rows, f"the run of {code(base)}")]


def _by_verdict(rows: pd.DataFrame, base: str) -> list[str]:
    """Group the names by verdict, the verdict first."""
    found = [(text.format(base=base), rows[rows["verdict"] == key]) for key, text in VERDICT_PHRASES.items()]
    return [f"- {text}: {_names(group)}" for text, group in found if len(group)]


def _names(rows: pd.DataFrame) -> str:
    return ", ".join(code(label) for label in rows["strategy"])


def _row(row: Mapping[Any, Any]) -> str:
    seeds = row["seeds"].replace(" ", ", ")
    interval = f"{100 * row['low']:+.1f} to {100 * row['high']:+.1f}"
    about = " (this run)" if row["level"] == "run" else ""
    cells = (
        code(row["strategy"]), seeds, f"{100 * row['difference']:+.1f}", interval,
        _probability(row["p"]), _probability(row["p_holm"]), row["verdict"] + about,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _probability(value: float) -> str:
    if math.isnan(value):
        return MISSING
    return "< 0.001" if value < 0.001 else f"{value:.3f}"  # noqa: PLR2004 - digits
