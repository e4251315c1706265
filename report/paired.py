"""Every recipe against the baseline, question by question: the frame behind comparisons.csv.

Runs are paired by seed: one seed means one initialisation and one order of the data for all recipes, so much of what
a seed does cancels in the difference. Scores come from runs/<run_id>/predictions.parquet, one recipe at a time; a run
whose file is not there is left out, for the CSVs alone can be reported on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from bench.record import COMPARISON_COLUMNS
from report import ReportError
from report.inference import UNKNOWN, holm, two_recipes, two_runs, verdict

if TYPE_CHECKING:
    from pathlib import Path

Scores = dict[str, "pd.Series[float]"]  # run id -> score by question

SHARED: Final = ("plan", "setting", "device", "batch_size")
FEWEST_SEEDS: Final = 2


def paired(folder: Path, runs: pd.DataFrame) -> pd.DataFrame:
    """Compare the finished runs of one setting with its baseline; columns of comparisons.csv, recipes first.

    runs: rows of runs.csv that may be compared, with `entry`. Empty without a baseline or predictions.
    """
    finished = runs[runs["status"] == "ok"]
    base = finished[finished["kind"] == "baseline"].drop_duplicates("seed", keep=False).set_index("seed")["run_id"]
    baselines = read_scores(folder, base)
    rows = []
    for label, group in finished[finished["kind"] == "run"].groupby("entry", sort=False):
        pairs = group.assign(baseline=group["seed"].map(base))
        pairs = pairs[pairs["baseline"].isin(list(baselines))].drop_duplicates("seed").sort_values("seed")
        rows += _rows(str(label), pairs, read_scores(folder, pairs["run_id"]), baselines)
    frame = pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))
    recipes = frame["p"].notna() & (frame["level"] == "recipe")
    frame.loc[recipes, "p_holm"] = holm(frame.loc[recipes, "p"].to_numpy(dtype=float))
    ordered: pd.DataFrame = frame.sort_values("level", kind="stable", ignore_index=True)
    return ordered


def statements(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows that speak for each recipe: its own, or with one seed that of its run."""
    several = set(frame.loc[(frame["level"] == "recipe") & frame["low"].notna(), "strategy"])
    chosen: pd.DataFrame = frame[(frame["level"] == "recipe") == frame["strategy"].isin(several)]
    return chosen


def read_scores(folder: Path, run_ids: pd.Series[str]) -> Scores:
    """Scores of these runs by question, as far as their files are there."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    scores = {}
    for run_id in run_ids:
        path = folder / "runs" / run_id / "predictions.parquet"
        if not path.is_file():
            continue
        try:
            table = pq.read_table(path, columns=["id", "score"])
        except (pa.ArrowException, OSError) as error:
            raise ReportError(f"{path}: not readable as predictions ({error}); delete the run's folder") from error
        scores[run_id] = pd.Series(table["score"].to_numpy(), index=pd.Index(table["id"].to_numpy()), dtype=float)
    return scores


def _rows(label: str, pairs: pd.DataFrame, scores: Scores, baselines: Scores) -> list[dict[str, Any]]:
    """One recipe's row and those of its runs."""
    rows, by_seed = [], {}
    for pair in pairs[pairs["run_id"].isin(list(scores))].to_dict("records"):
        difference = (scores[pair["run_id"]] - baselines[pair["baseline"]]).dropna()
        if difference.empty:
            continue
        by_seed[pair["seed"]] = difference
        about = {column: pair[column] for column in SHARED} | {"strategy": label}
        about_run = {"run_id": pair["run_id"], "baseline_run_id": pair["baseline"], "seeds": f"{pair['seed']:g}"}
        estimate = two_runs(difference.to_numpy())
        found = {"num_questions": len(difference), "verdict": verdict(estimate), **estimate._asdict()}
        rows.append({"level": "run", **about, **about_run, **found})
    return [_recipe(rows[0], by_seed), *rows] if rows else []


def _recipe(run: dict[str, Any], by_seed: dict[float, pd.Series[float]]) -> dict[str, Any]:
    """What all seeds together say of a recipe; `run`: the row of one of its runs."""
    table = pd.concat(by_seed, axis=1).dropna().to_numpy().T  # (seeds, questions)
    about = {key: run[key] for key in ("strategy", *SHARED)} | {"seeds": " ".join(f"{seed:g}" for seed in by_seed)}
    row = {"level": "recipe", **about, "num_questions": table.shape[1], "difference": float(np.mean(table))}
    if min(table.shape) < FEWEST_SEEDS:
        return row | {"verdict": UNKNOWN}
    estimate = two_recipes(table)
    return row | estimate._asdict() | {"verdict": verdict(estimate)}
