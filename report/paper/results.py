"""The paper's tables and sentences about results, one comparison at a time; every number comes from the CSVs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from report.frames.ablations import by_label
from report.frames.inference import ALPHA, BETTER, EQUAL, UNKNOWN, WORSE
from report.frames.paired import statements
from report.frames.units import MISSING, amount, byte_unit, count, percent, time_unit, times
from report.paper.tex import Tex, code, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd

    from report.frames.compare import Comparison

MAX_ROWS: Final = 40
MAX_NAMED: Final = 8
SLOWER: Final = 1.05  # times the baseline, more than what a shared machine does
MORE_MEMORY: Final = 1.01
SEVERAL: Final = 2  # seeds, from which there is a range
SMALL: Final = 0.001  # probability that is not written out
SCORES: Final = {
    "vqa_accuracy": "VQA acc.", "accuracy": "Accuracy", "f1_macro": "F1", "precision_macro": "Precision",
    "recall_macro": "Recall",
}  # fmt: skip
MEMORY: Final = {
    "peak_allocated_bytes": "Peak", "weights_bytes": "Weights", "gradients_bytes": "Gradients",
    "optimizer_bytes": "Optimizer", "activations_bytes": "Activations",
}  # fmt: skip
VERDICTS: Final = {
    BETTER: "better than the baseline", EQUAL: "equal to the baseline within one point",
    WORSE: "worse than the baseline", UNKNOWN: "not to be told from the baseline",
}  # fmt: skip

Table = list[list[list[Tex]]]  # parts that fit a page: rows: cells


def scores_of(comparison: Comparison) -> dict[str, str]:
    """The columns of SCORES that were measured, with their heads: VQA accuracy is not of every task."""
    return {column: head for column, head in SCORES.items() if comparison.entries[column].notna().any()}


def quality_table(comparison: Comparison) -> Table:
    """Name, scores, TTT and its ratio of every entry, controls included; several seeds with lowest and highest."""
    rows = by_label(comparison).values()
    unit = time_unit(max((row["ttt_seconds"] for row in rows if row["ttt_seconds"] > 0), default=0.0))
    return _parts([
        [_name(row), *(_score(row, column) for column in scores_of(comparison)),
         *map(escape, (amount(row["ttt_seconds"], unit), times(row["ttt_ratio"])))]
        for row in rows
    ])  # fmt: skip


def memory_table(comparison: Comparison) -> Table:
    """Name, MEMORY, the peak's ratio and what trains, of every recipe."""
    rows = [row for row in by_label(comparison).values() if row["kind"] != "control"]
    unit = byte_unit(max((row["peak_allocated_bytes"] for row in rows if row["peak_allocated_bytes"] > 0), default=0.0))
    return _parts([
        [_name(row), *(escape(amount(row[column], unit)) for column in MEMORY), escape(times(row["memory_ratio"])),
         escape(count(row["trainable_parameters"]))]
        for row in rows
    ])  # fmt: skip


def verdict_table(comparison: Comparison) -> Table:
    """Name, seeds, difference in points, its interval, p, p corrected and verdict of every recipe that was paired."""
    return _parts([
        [code(row["strategy"]), escape(row["seeds"].replace(" ", ", ")), escape(signed(row["difference"])),
         escape(f"{signed(row['low'])} to {signed(row['high'])}"), _probability(row["p"]),
         _probability(row["p_holm"]), escape(row["verdict"])]
        for row in statements(comparison.paired).to_dict("records")
    ])  # fmt: skip


def failure_table(comparison: Comparison) -> Table:
    """Name, seed, status and reason of every run that did not finish."""
    return _parts([
        [code(row["entry"]), escape(f"{row['seed']:g}"), escape(row["status"]), escape(str(row["reason"])[:160])]
        for row in comparison.failures.to_dict("records")
    ])  # fmt: skip


def verdict_sentences(comparison: Comparison) -> list[Tex]:
    """What the paired comparisons allow to be said, the verdicts first."""
    rows, base = statements(comparison.paired), comparison.baseline
    if rows.empty or base is None:
        return [escape("No recipe could be paired with a finished baseline run, so nothing is compared.")]
    recipes = rows[rows["level"] == "recipe"]
    sentences = [Tex(f"{_list(found)} {'is' if len(found) == 1 else 'are'} {escape(words)}.")
            for verdict, words in VERDICTS.items() if len(found := rows[rows["verdict"] == verdict])]  # fmt: skip
    if recipes.empty:
        first = "One seed was run, so the verdicts are about these trained models and not about the recipes:"
        return [escape(first), *sentences]
    significant, comparisons = _after_holm(recipes)
    holm = Tex(f"Corrected for {comparisons} by Holm's method, ") + (
        Tex(f"{_list(significant)} still differ{'s' if len(significant) == 1 else ''}.")
        if len(significant)
        else "no difference remains."
    )
    return [*sentences, Tex(holm)]


def _after_holm(recipes: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """The recipes whose difference remains after Holm's correction, and for how many comparisons it corrects."""
    number = len(recipes)
    return recipes[recipes["p_holm"] < ALPHA], f"{number} comparison{'' if number == 1 else 's'}"


def significance_sentence(comparison: Comparison) -> Tex:
    """Whether the differences of a sweep say anything about recipes; empty where no recipe finished."""
    if not (comparison.finished["kind"] == "run").any():
        return Tex("")
    recipes = comparison.paired[(comparison.paired["level"] == "recipe") & comparison.paired["p_holm"].notna()]
    if comparison.paired.empty:
        return escape("Scores by question are not there, so none of these differences is tested.")
    if recipes.empty:
        return escape(
            "Recipes are compared in one seed, so these differences are between trained models, not between recipes."
        )
    significant, comparisons = _after_holm(recipes)
    corrected = f"With $p$ corrected for {comparisons}"
    if significant.empty:
        return Tex(f"{corrected} no difference in quality remains: this sweep does not say which recipe is better.")
    differs = f"differ{'s' if len(significant) == 1 else ''} from the baseline in quality"
    others = "; every other difference may be chance" if len(significant) < len(recipes) else ""
    return Tex(f"{corrected} {_list(significant)} {differs}{others}.")


def levels(comparison: Comparison) -> set[str]:
    """What was compared: `recipe` with several seeds, `run` with one."""
    return set(statements(comparison.paired)["level"])


def recipe_expansions(comparisons: Sequence[Comparison]) -> list[Tex]:
    """`name` for `sum`: what a recipe's name of its own stands for, in the order of the tables."""
    found: dict[str, str] = {}
    for comparison in comparisons:
        runs = comparison.runs[(comparison.runs["kind"] == "run") & (comparison.runs["plan"] != "")]
        found |= dict(zip(runs["strategy"], runs["plan"], strict=True))
    return [
        Tex(f"{code(name)} for {code(plan)}")
        for name, plan in found.items()
        if name and sorted(name.split("+")) != sorted(plan.split("+"))
    ]


def signed(share: float) -> str:
    """A difference in points with its sign, a minus and no hyphen."""
    return f"{100 * share:+.1f}".replace("-", "−")


def negative_sentences(comparison: Comparison) -> list[Tex]:
    """What did not work: recipes that cost time, save no memory, lose quality, or did not run."""
    entries, base = comparison.entries, comparison.baseline
    recipes = entries[(entries["kind"] == "run") & (entries["num_ok"] > 0)]
    sentences = []
    if base is not None:
        slower = recipes[(recipes["ttt_ratio"] > SLOWER) & (recipes["ttt_ratio_low"] > 1)]
        once = " in one run each, which other work on the machine may explain" if recipes["num_ok"].max() == 1 else ""
        what = f"took more time than full fine-tuning{once}"
        sentences.append(_sentence(what, slower, lambda row: times(row["ttt_ratio"])))
        heavier = recipes[recipes["memory_ratio"] > MORE_MEMORY]
        sentences.append(
            _sentence("needed more memory than full fine-tuning", heavier, lambda row: times(row["memory_ratio"]))
        )
    worse = statements(comparison.paired)
    worse = worse[worse["verdict"] == WORSE].rename(columns={"strategy": "label"})
    sentences.append(_sentence("lost quality", worse, lambda row: f"{signed(row['difference'])} points"))
    failed = entries[(entries["num_ok"] == 0) & (entries["kind"] == "run")]
    sentences.append(_sentence("did not run", failed, lambda row: str(row["status"])))
    return [sentence for sentence in sentences if sentence]


def _sentence(what: str, rows: pd.DataFrame, figure: Callable[[Any], str]) -> Tex:
    """`a (1.2 ×), b (1.3 ×) and 3 more took more time`, or nothing."""
    if rows.empty:
        return Tex("")
    shown = [Tex(f"{code(row['label'])} ({escape(figure(row))})") for row in rows.head(MAX_NAMED).to_dict("records")]
    return Tex(f"{_and(shown, len(rows) - len(shown))} {escape(what)}.")


def _list(rows: pd.DataFrame) -> Tex:
    names = [code(label) for label in rows["strategy"].head(MAX_NAMED)]
    return _and(names, len(rows) - len(names))


def _and(words: Sequence[Tex], more: int) -> Tex:
    every = [*words, *([Tex(f"{more} more")] if more > 0 else [])]
    return Tex(every[0] if len(every) == 1 else f"{', '.join(every[:-1])} and {every[-1]}")


def _name(row: dict[str, Any]) -> Tex:
    name = Tex(rf"\emph{{{escape(row['label'])}}} (control)") if row["kind"] == "control" else code(row["label"])
    return name if row["status"] == "ok" else Tex(f"{name} [{escape(row['status'])}]")


def _score(row: dict[str, Any], column: str) -> Tex:
    if math.isnan(row[column]):
        return escape(MISSING)
    mean = percent(row[column]).removesuffix(" %")
    if row["num_ok"] < SEVERAL:
        return escape(mean)
    return escape(f"{mean} ({100 * row[f'{column}_low']:.1f}–{100 * row[f'{column}_high']:.1f})")


def _probability(value: float) -> Tex:
    return escape(MISSING if math.isnan(value) else f"< {SMALL}" if value < SMALL else f"{value:.3f}")


def _parts(rows: list[list[Tex]]) -> Table:
    return [rows[start : start + MAX_ROWS] for start in range(0, len(rows), MAX_ROWS)]
