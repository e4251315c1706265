"""What is compared with what: settings, repeats over seeds, ratios to the baseline, the Pareto front.

Runs share a figure or a table only when task, model, data, device and batch are the same. Repeats of one
plan with different seeds become one entry (mean, lowest, highest); the same plan *and* seed twice means that
another setting differs, so those stay apart and carry that setting in their label. A ratio is taken run by
run against the baseline run of the same seed, then averaged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd

from bench.records.record import RUN_COLUMNS, TEXT_COLUMNS
from report.errors import ReportError
from report.frames.paired import paired
from report.frames.results import Results
from report.frames.units import MISSING, cell

SETTING: Final = ("task", "model", "dataset", "setting", "device", "gpu_name", "num_threads", "batch_size")
VARIANT: Final = ("lr", "head_lr", "epochs", "steps", "train_samples", "grad_accumulation", "precision")
RATIOS: Final = {"ttt_ratio": "ttt_seconds", "memory_ratio": "peak_allocated_bytes"}
NUMBERS: Final = tuple(column for column in RUN_COLUMNS if column not in TEXT_COLUMNS)
FALLBACK: Final = {
    "setup": "setup_seconds",
    "warmup": "warmup_seconds",
    "train": "train_seconds",
}
ORDER: Final = {"baseline": 0, "run": 1, "control": 2}


@dataclass(frozen=True)
class Comparison:
    """Runs that may be compared.

    setting: the values of SETTING, as text, that all runs share.
    runs: the rows of runs.csv with `entry`, the label of the entry they belong to.
    entries: one row per entry: label, plan, kind, num_runs, num_ok, status, the mean over its finished runs
        of every number of runs.csv and of RATIOS, and the lowest and highest as `_low` and `_high`.
    history, metrics: history.csv and metrics.csv of the finished runs, with `entry`.
    sections: sections.csv of all runs.
    paired: every recipe, and every run, against the baseline question by question; see comparisons.csv.
    """

    setting: dict[str, str]
    runs: pd.DataFrame
    entries: pd.DataFrame
    history: pd.DataFrame
    metrics: pd.DataFrame
    sections: pd.DataFrame
    paired: pd.DataFrame

    @property
    def baseline(self) -> pd.Series[Any] | None:
        """The finished baseline entry; None when there is none, or more than one."""
        found = self.entries[(self.entries["kind"] == "baseline") & (self.entries["num_ok"] > 0)]
        return found.iloc[0] if len(found) == 1 else None

    @property
    def finished(self) -> pd.DataFrame:
        """Rows of the runs that finished, controls left out."""
        chosen: pd.DataFrame = self.runs[(self.runs["status"] == "ok") & (self.runs["kind"] != "control")]
        return chosen

    @property
    def failures(self) -> pd.DataFrame:
        """Rows of the runs that did not finish."""
        failed: pd.DataFrame = self.runs[self.runs["status"] != "ok"]
        return failed

    @property
    def disturbed(self) -> pd.DataFrame:
        """Rows of the finished runs whose times are left out, as others disturbed them."""
        marked: pd.DataFrame = self.runs[(self.runs["status"] == "ok") & (self.runs["disturbed"] != "")]
        return marked

    @property
    def score(self) -> str:
        """The column of quality: VQA accuracy where the task has one, else plain accuracy."""
        return "vqa_accuracy" if self.entries["vqa_accuracy"].notna().any() else "accuracy"


def pareto_front(costs: list[float], scores: list[float]) -> list[bool]:
    """Mark the points no other beats, that is, costs no more, scores no less and is better in one of both."""
    cost, score = np.asarray(costs, dtype=float), np.asarray(scores, dtype=float)
    no_worse = (cost[None, :] <= cost[:, None]) & (score[None, :] >= score[:, None])
    better = (cost[None, :] < cost[:, None]) | (score[None, :] > score[:, None])
    known = np.isfinite(cost) & np.isfinite(score)
    return [bool(flag) for flag in known & ~(no_worse & better).any(axis=1)]


def compare(results: Results) -> list[Comparison]:
    """Split a sweep into what may be compared, the largest group first."""
    runs = results.runs[results.runs["kind"] != "tuning"].copy()
    if runs.empty:
        raise ReportError(f"{results.folder}: holds trials of rates only; start the same sweep again, which goes on")
    seconds = results.sections.groupby(["section", "run_id"])["seconds"].sum()
    for section, column in FALLBACK.items():
        if section in seconds.index.get_level_values(0):
            runs[column] = runs[column].fillna(runs["run_id"].map(seconds[section]))
    return [_comparison(setting, group, results) for setting, group in _settings(runs)]


def _settings(runs: pd.DataFrame) -> list[tuple[dict[str, str], pd.DataFrame]]:
    """Group runs by setting; one that never started has empty cells and joins what it agrees with."""
    texts = pd.DataFrame({column: [cell(value) for value in runs[column]] for column in SETTING}, index=runs.index)
    finished = texts[(runs["status"] == "ok") & (runs["kind"] != "control")]
    found = (finished if len(finished) else texts[runs["status"] == "ok"]).value_counts()
    groups, rest = [], pd.Series(data=True, index=runs.index)
    for values in found.index:
        agrees = pd.Series(data=True, index=runs.index)
        for column, value in zip(SETTING, values, strict=True):
            free = (texts[column] == "") | ((runs["kind"] == "control") & (column == "task"))
            agrees &= free | (texts[column] == value)
        groups.append((dict(zip(SETTING, values, strict=True)), runs[agrees]))
        rest &= ~agrees
    if rest.any():
        left = texts[rest]
        groups.append(({c: cell(left[c].iloc[0]) if len(set(left[c])) == 1 else "" for c in SETTING}, runs[rest]))
    return groups


def _comparison(setting: dict[str, str], runs: pd.DataFrame, results: Results) -> Comparison:
    runs = _with_ratios(runs.assign(entry=_labels(runs)))
    entries = _entries(runs).sort_values("kind", key=lambda kinds: kinds.map(ORDER), kind="stable", ignore_index=True)
    finished = runs.loc[runs["status"] == "ok"].set_index("run_id")["entry"]

    def of_finished(frame: pd.DataFrame) -> pd.DataFrame:
        kept: pd.DataFrame = frame[frame["run_id"].isin(finished.index)]
        named: pd.DataFrame = kept.assign(entry=kept["run_id"].map(finished))
        return named

    return Comparison(
        setting, runs, entries, history=of_finished(results.history), metrics=of_finished(results.metrics),
        sections=results.sections[results.sections["run_id"].isin(runs["run_id"])],
        paired=paired(results.folder, runs),
    )  # fmt: skip


def _labels(runs: pd.DataFrame) -> pd.Series[str]:
    """Name the entry of each run: the recipe as first typed, plus the setting that keeps it apart."""
    labels = pd.Series("", index=runs.index, dtype=object)
    control = runs["kind"] == "control"
    keys = runs["kind"] + "\n" + runs["strategy"].where(control | (runs["plan"] == ""), runs["plan"])
    taken: set[str] = set()
    for key, group in runs.groupby(keys, sort=False):
        name = str(group["strategy"].iloc[0] or group["plan"].iloc[0] or group["run_id"].iloc[0])
        name = name if name not in taken else str(key).split("\n")[1]
        name = name if name not in taken else f"{name} ({group['run_id'].iloc[0]})"
        taken.add(name)
        labels[group.index] = name + _variant(group)
    return labels


def _variant(group: pd.DataFrame) -> pd.Series[str]:
    """Separate finished runs of one plan and seed by a suffix; empty where seeds are the repeats."""
    suffix = pd.Series("", index=group.index, dtype=object)
    ok = group[group["status"] == "ok"]
    for column in (*VARIANT, "run_id"):
        if not pd.Series(list(zip(ok["seed"], suffix[ok.index], strict=True)), dtype=object).duplicated().any():
            break
        if len(set(ok[column].map(cell))) > 1:
            suffix += " " + column + "=" + group[column].map(cell).replace("", MISSING)
    return suffix


def _with_ratios(runs: pd.DataFrame) -> pd.DataFrame:
    """Add RATIOS: each run over the one finished baseline run of its seed; none or several give no ratio."""
    base = runs[(runs["kind"] == "baseline") & (runs["status"] == "ok")].drop_duplicates("seed", keep=False)
    divisors = base.set_index("seed")
    usable = runs["kind"] != "control"
    ratios = {}
    for name, column in RATIOS.items():
        divisor = runs["seed"].map(divisors[column]).astype(float)
        ratios[name] = (runs[column] / divisor.where(divisor > 0)).where(usable)
    with_ratios: pd.DataFrame = runs.assign(**ratios)
    return with_ratios


def _entries(runs: pd.DataFrame) -> pd.DataFrame:
    """Build `entries`; figures of runs that did not finish are left out, parameter counts are kept."""
    columns = [column for column in (*NUMBERS, *RATIOS) if column != "seed"]
    measured = [column for column in columns if not column.endswith("_parameters")]
    numbers = runs[["entry", *columns]].copy()
    numbers.loc[runs["status"] != "ok", measured] = np.nan
    spread = numbers.groupby("entry", sort=False).agg(["mean", "min", "max"])
    ends = {"mean": "", "min": "_low", "max": "_high"}
    spread.columns = pd.Index([f"{column}{ends[how]}" for column, how in spread.columns])
    heads = [_head(str(label), group) for label, group in runs.groupby("entry", sort=False)]
    entries: pd.DataFrame = pd.DataFrame(heads).join(spread, on="label")
    return entries


def _head(label: str, group: pd.DataFrame) -> dict[str, Any]:
    """Say what an entry is and how many of its runs finished."""
    statuses = [str(status) for status in group["status"]]
    finished = statuses.count("ok")
    status = ", ".join(dict.fromkeys(word for word in statuses if word != "ok"))
    if finished:
        status = f"{finished} of {len(group)} ok, {status}" if status else "ok"
    if disturbed := int(((group["status"] == "ok") & (group["disturbed"] != "")).sum()):
        status += ", disturbed" if disturbed == len(group) else f", {disturbed} of {len(group)} disturbed"
    plan, kind = str(group["plan"].iloc[0]), str(group["kind"].iloc[0])
    return {"label": label, "plan": plan, "kind": kind, "num_runs": len(group), "num_ok": finished, "status": status}
