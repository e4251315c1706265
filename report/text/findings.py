"""Two or three sentences computed from the figures: what to take, what it costs, whether to believe it.

Each sentence is a function of one comparison and stays away when a number it needs was not measured, so the
text can never say more than the table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from report.frames.disturbed import MIN_REPEATS, left_out
from report.frames.targets import too_good
from report.frames.units import SCORE_NAMES, percent, points, times

if TYPE_CHECKING:
    from report.frames.compare import Comparison

CLOSE_SCORE: Final = 0.02
MAX_NAMED: Final = 4


def findings(comparison: Comparison, *, caution: bool = True) -> list[str]:
    """Write all sentences that the numbers allow, the most useful first; the last, a caution, on request."""
    sentences = [_least_memory(comparison), _best(comparison), _control(comparison), too_good(comparison)]
    sentences += [_caution(comparison)] if caution else []
    return [sentence for sentence in sentences if sentence]


def _recipes(comparison: Comparison) -> pd.DataFrame:
    """Select the finished recipes that have a score, baseline left out."""
    entries = comparison.entries
    chosen: pd.DataFrame = entries[(entries["kind"] == "run") & entries[comparison.score].notna()]
    return chosen


def _least_memory(comparison: Comparison) -> str:
    """Name the recipe with the smallest peak among those close to the baseline."""
    base, recipes = comparison.baseline, _recipes(comparison)
    if base is None or recipes.empty or pd.isna(base[comparison.score]):
        return ""
    difference = recipes[comparison.score] - base[comparison.score]
    close = recipes[difference >= -CLOSE_SCORE].dropna(subset=["memory_ratio"])
    limit = f"{100 * CLOSE_SCORE:.0f} points"
    if close.empty and (difference < -CLOSE_SCORE).all():
        best = recipes.iloc[int(difference.argmax())]
        return f"No recipe comes within {limit} of {base['label']}; the nearest is {_cost(comparison, best, base)}."
    if close.empty:
        return ""
    least = close.iloc[int(close["memory_ratio"].argmin())]
    return (
        f"Of the recipes no more than {limit} below {base['label']}, the one with the lowest peak memory "
        f"is {_cost(comparison, least, base)}."
    )


def _cost(comparison: Comparison, entry: pd.Series[Any], base: pd.Series[Any]) -> str:
    """Say what one recipe trains, takes and reaches, as far as it was measured."""
    clauses = []
    share = entry["trainable_parameters"] / entry["total_parameters"] if entry["total_parameters"] > 0 else float("nan")
    if not pd.isna(share):
        clauses.append(f"trains {percent(share)} of the parameters")
    costs = [(entry["ttt_ratio"], "the time"), (entry["memory_ratio"], "the peak memory")]
    known = [f"{times(ratio)} {what}" for ratio, what in costs if not pd.isna(ratio)]
    if known:
        clauses.append(f"takes {' and '.join(known)} of {base['label']}")
    clauses.append(f"ends {points(entry[comparison.score] - base[comparison.score])} it")
    return f"{entry['label']}: it {', '.join(clauses[:-1])}{' and ' if len(clauses) > 1 else ''}{clauses[-1]}"


def _best(comparison: Comparison) -> str:
    """Name the highest score when it is not the baseline's."""
    base, recipes = comparison.baseline, _recipes(comparison)
    if recipes.empty:
        return ""
    best = recipes.iloc[int(recipes[comparison.score].argmax())]
    score = f"The highest {SCORE_NAMES[comparison.score]} is {percent(best[comparison.score])}, by {best['label']}"
    if base is None or pd.isna(base[comparison.score]):
        return f"{score}; there is no single finished baseline run to compare with."
    if best[comparison.score] <= base[comparison.score]:
        return f"No recipe is better than {base['label']} ({percent(base[comparison.score])})."
    return f"{score}, {points(best[comparison.score] - base[comparison.score])} {base['label']}."


def _control(comparison: Comparison) -> str:
    """Say how far the strongest sanity row stays below the baseline."""
    base, entries = comparison.baseline, comparison.entries
    controls = entries[(entries["kind"] == "control") & entries[comparison.score].notna()]
    if base is None or controls.empty or pd.isna(base[comparison.score]):
        return ""
    strongest = controls.iloc[int(controls[comparison.score].argmax())]
    difference = points(strongest[comparison.score] - base[comparison.score])
    return f"The strongest control, {strongest['label']}, ends {difference} {base['label']}."


def _caution(comparison: Comparison) -> str:
    """Say what the reader must not conclude."""
    failed, total = len(comparison.failures), len(comparison.runs)
    sentences = [f"{failed} of {total} runs did not finish (below)."] if failed else []
    if comparison.runs["seed"].nunique() < 2 and failed < total:  # noqa: PLR2004 - one seed is no repeat
        sentences.append("One seed only: small differences may be chance; repeat with --seeds 0,1,2.")
    if disturbed := left_out(len(comparison.disturbed)):
        sentences.append(f"{disturbed} (below).")
    return " ".join([*sentences, *_few_repeats(comparison)])


def _few_repeats(comparison: Comparison) -> list[str]:
    """Say so where a time is of fewer runs than a headline needs, though there are several seeds."""
    timed = comparison.finished.groupby("entry", sort=False)["ttt_seconds"].count()
    few = timed[(timed > 0) & (timed < MIN_REPEATS)]
    if comparison.runs["seed"].nunique() < 2 or few.empty:  # noqa: PLR2004 - one seed has its own sentence
        return []
    named = ", ".join(f"{label} ({number})" for label, number in few.head(MAX_NAMED).items())
    more = f" and {len(few) - MAX_NAMED} more" if len(few) > MAX_NAMED else ""
    return [f"Times are of fewer than three runs of {named}{more}."]
