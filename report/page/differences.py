"""Differences between any two runs and any two recipes with their intervals, made ready for the browser.

The rules are those of `report.frames.inference`, and they are computed here: a bootstrap drawn again by the browser
would show other digits than comparisons.csv. Pairs lie in flat arrays, the pair (i, j) with i < j at place i·n −
i(i+1)/2 + j − i − 1.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from report.frames.inference import BETTER, EQUAL, UNKNOWN, WORSE, Estimate, two_recipes, two_runs, verdict
from report.frames.paired import MIN_SEEDS, aligned

if TYPE_CHECKING:
    from collections.abc import Sequence

    from report.frames.compare import Comparison
    from report.frames.paired import Scores

MAX_PAIRS: Final = 8_000
MAX_WORK: Final = 300_000_000  # questions of all pairs
VERDICTS: Final = (EQUAL, BETTER, WORSE, UNKNOWN)
DIGITS: Final = 6


class Pairs:
    """Collects estimates of pairs as flat arrays."""

    def __init__(self, members: Sequence[Any]) -> None:
        self.members = list(members)
        self.rows: list[tuple[Any, ...] | None] = []

    def add(self, estimate: Estimate, questions: int, ahead: int, behind: int) -> None:
        """Add one pair: its estimate and on how many questions either is ahead."""
        numbers = [round(float(value), DIGITS) for value in estimate[:3]]
        counts = (questions, ahead, behind)
        self.rows.append((*numbers, float(f"{estimate.p:.3g}"), *counts, VERDICTS.index(verdict(estimate))))

    def skip(self) -> None:
        """Add a pair that cannot be compared."""
        self.rows.append(None)

    def packed(self) -> dict[str, Any]:
        """The arrays; a pair that cannot be compared has no questions."""
        names = ("difference", "low", "high", "p", "questions", "ahead", "behind", "verdict")
        arrays = zip(*[row or (0, 0, 0, 1, 0, 0, 0, 3) for row in self.rows], strict=True) if self.rows else [()] * 8
        return {"members": self.members, **{name: list(array) for name, array in zip(names, arrays, strict=True)}}


def of_runs(runs: pd.DataFrame, scores: Scores) -> tuple[dict[str, Any] | None, str]:
    """Compare every two finished runs that have scores; None, and why, when these are too many."""
    scored = [run_id for run_id in runs.loc[runs["status"] == "ok", "run_id"] if run_id in scores]
    row_of = {run_id: row for row, run_id in enumerate(runs["run_id"])}
    if len(scored) < 2:  # noqa: PLR2004 - a pair
        return None, "no two runs have scores by question (predictions.parquet)"
    num_pairs = len(scored) * (len(scored) - 1) // 2
    if num_pairs > MAX_PAIRS or num_pairs * max(len(scores[run_id]) for run_id in scored) > MAX_WORK:
        return None, f"{len(scored)} runs make too many pairs for one page, so each is compared with its baseline only"
    data = dict(zip(runs["run_id"], runs["dataset"], strict=True))
    pairs = Pairs([row_of[run_id] for run_id in scored])
    for one, other in combinations(scored, 2):
        table, questions = aligned([scores[one], scores[other]])
        if data[one] != data[other] or not len(questions):
            pairs.skip()
        else:
            _add(pairs, two_runs(table[0] - table[1]), table[0] - table[1])
    return pairs.packed(), ""


def with_baseline(comparisons: Sequence[Comparison], runs: pd.DataFrame) -> list[dict[str, Any]]:
    """Every run against the baseline run of its seed, from the rows of comparisons.csv."""
    row_of = {run_id: row for row, run_id in enumerate(runs["run_id"])}
    rows = [row for comparison in comparisons for row in comparison.paired.query("level == 'run'").to_dict("records")]
    return [
        {
            "run": row_of[row["run_id"]],
            "baseline": row_of[row["baseline_run_id"]],
            **{key: round(float(row[key]), DIGITS) for key in ("difference", "low", "high")},
            "p": float(f"{row['p']:.3g}"),
            "questions": int(row["num_questions"]),
            "verdict": VERDICTS.index(row["verdict"]),
        }
        for row in rows
    ]


def of_recipes(comparison: Comparison, scores: Scores) -> dict[str, Any] | None:
    """Compare every two recipes of one setting that share two seeds; None where there is no such pair."""
    by_entry: dict[str, dict[float, pd.Series[float]]] = {}
    for row in comparison.finished.drop_duplicates(["entry", "seed"], keep=False).itertuples():
        if row.run_id in scores:
            by_entry.setdefault(str(row.entry), {})[float(row.seed)] = scores[str(row.run_id)]
    labels = [label for label, seeds in by_entry.items() if len(seeds) >= MIN_SEEDS]
    if not 1 < len(labels) * (len(labels) - 1) // 2 + 1 <= MAX_PAIRS:
        return None
    pairs = Pairs(labels)
    for one, other in combinations(labels, 2):
        seeds = sorted(set(by_entry[one]) & set(by_entry[other]))
        columns = [by_entry[label][seed] for label in (one, other) for seed in seeds]
        table = aligned(columns)[0] if len(seeds) >= MIN_SEEDS else np.empty((0, 0))
        if min(table.shape) < MIN_SEEDS:
            pairs.skip()
            continue
        differences = table[: len(seeds)] - table[len(seeds) :]
        _add(pairs, two_recipes(differences), differences.mean(axis=0))
    return pairs.packed()


def _add(pairs: Pairs, estimate: Estimate, by_question: Any) -> None:
    pairs.add(estimate, len(by_question), int((by_question > 0).sum()), int((by_question < 0).sum()))
