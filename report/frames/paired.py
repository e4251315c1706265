"""Every recipe against the baseline, question by question: the frame behind comparisons.csv.

Runs are paired by seed: one seed means one initialisation and one order of the data for all recipes, so much of what
a seed does cancels in the difference. Scores come from the sweep's predictions, one recipe at a time; a run that has
none is left out, for the CSVs alone can be reported on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from bench.records.record import COMPARISON_COLUMNS
from report.frames.inference import UNKNOWN, holm, two_recipes, two_runs, verdict
from report.frames.predictions import read_predictions

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

Scores = dict[str, "pd.Series[float]"]  # run id -> score by question

SHARED: Final = ("plan", "setting", "device", "batch_size")
MIN_SEEDS: Final = 2


def paired(folder: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Compare the finished runs of one setting with its baseline; columns of comparisons.csv, recipes first.

    runs: rows of runs.csv that may be compared, with `entry`. Empty without a baseline or predictions.
    """
    finished = runs[runs["status"] == "ok"]
    base = finished[finished["kind"] == "baseline"].drop_duplicates("seed", keep=False).set_index("seed")["run_id"]
    baselines = read_scores(folder, base)
    recipes = finished.loc[finished["kind"] == "run", ["entry", "run_id", "seed", *SHARED]]
    pairs = recipes.assign(baseline=recipes["seed"].map(base)).sort_values("seed", kind="stable")
    pairs = pairs[pairs["baseline"].isin(list(baselines))].drop_duplicates(["entry", "seed"])
    by_entry = dict(list(pairs.groupby("entry", sort=False)))
    rows = []
    for label in recipes["entry"].unique():
        if label in by_entry:
            rows += _rows(label, by_entry[label], read_scores(folder, by_entry[label]["run_id"]), baselines)
    frame = pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))
    tested = frame["p"].notna() & (frame["level"] == "recipe")
    frame.loc[tested, "p_holm"] = holm(frame.loc[tested, "p"].to_numpy(dtype=float))
    ordered: pd.DataFrame = frame.sort_values("level", kind="stable", ignore_index=True)
    return ordered


def statements(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that speak for each recipe: its own, or with one seed that of its run."""
    several = set(frame.loc[(frame["level"] == "recipe") & frame["low"].notna(), "strategy"])
    chosen: pd.DataFrame = frame[(frame["level"] == "recipe") == frame["strategy"].isin(several)]
    return chosen


def read_scores(folder: Path, run_ids: pd.Series[str]) -> Scores:
    """Scores of these runs by question, as far as their predictions are there."""
    found = read_predictions(folder, run_ids, ("id", "score"))
    return {run_id: scores_of(rows) for run_id, rows in found.items()}


def scores_of(rows: pd.DataFrame) -> pd.Series[float]:
    """Score by question, from the predictions of a run."""
    scores: pd.Series[float] = pd.Series(rows["score"].to_numpy(), index=pd.Index(rows["id"].to_numpy()), dtype=float)
    return scores


def aligned(columns: list[pd.Series[float]]) -> tuple[NDArray[np.float64], pd.Index[Any]]:
    """Scores (columns, questions) of the questions that all have; quick where all have the same in one order."""
    index = columns[0].index
    if all(column.index.equals(index) for column in columns):
        return np.stack([column.to_numpy() for column in columns]), index
    table = pd.concat(columns, axis=1).dropna()
    return table.to_numpy().T, table.index


def _rows(label: str, pairs: pd.DataFrame, scores: Scores, baselines: Scores) -> list[dict[str, Any]]:
    """One recipe's row and those of its runs."""
    rows: list[dict[str, Any]] = []
    by_seed: dict[float, pd.Series[float]] = {}
    for pair in pairs.to_dict("records"):
        if pair["run_id"] not in scores:
            continue
        table, questions = aligned([scores[pair["run_id"]], baselines[pair["baseline"]]])
        if not len(questions):
            continue
        by_seed[float(pair["seed"])] = pd.Series(table[0] - table[1], index=questions)
        estimate = two_runs(table[0] - table[1])
        rows.append({
            "level": "run", "strategy": label, **{column: pair[column] for column in SHARED},
            "run_id": pair["run_id"], "baseline_run_id": pair["baseline"], "seeds": f"{pair['seed']:g}",
            "num_questions": len(questions), "verdict": verdict(estimate), **estimate._asdict(),
        })  # fmt: skip
    return [_recipe(rows[0], by_seed), *rows] if rows else []


def _recipe(run: dict[str, Any], by_seed: dict[float, pd.Series[float]]) -> dict[str, Any]:
    """What all seeds together say of a recipe; `run`: the row of one of its runs."""
    table, _ = aligned(list(by_seed.values()))  # (seeds, questions)
    about = {key: run[key] for key in ("strategy", *SHARED)} | {"seeds": " ".join(f"{seed:g}" for seed in by_seed)}
    row = {"level": "recipe", **about, "num_questions": table.shape[1], "difference": float(np.mean(table))}
    if min(table.shape) < MIN_SEEDS:
        return row | {"verdict": UNKNOWN}
    estimate = two_recipes(table)
    return row | estimate._asdict() | {"verdict": verdict(estimate)}
