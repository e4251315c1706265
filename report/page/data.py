"""Everything the page shows, as plain values: frames become columns, missing numbers null, never reached "never"."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import pandas as pd

from bench.records.record import KINDS, STATUSES, TEXT_COLUMNS
from report.frames.compare import Comparison
from report.frames.paired import statements
from report.frames.results import Results
from report.page.columns import columns
from report.page.command import run_command, sweep_command
from report.page.differences import VERDICTS, of_recipes, of_runs, with_baseline
from report.page.sidecars import PageSidecars
from report.text.findings import findings
from report.text.summary import heading

if TYPE_CHECKING:
    from collections.abc import Sequence

    from report.frames.paired import Scores

MEMORY: Final = ("peak_device_bytes", "peak_reserved_bytes", "peak_allocated_bytes")  # what a budget must hold
MAX_POINTS: Final = 60_000
MIN_CURVE_POINTS: Final = 12
NEVER: Final = "never"
ENTRY: Final = ("label", "plan", "kind", "num_runs", "num_ok", "status", "ttt_seconds", "trainable_parameters")


def page_data(results: Results, comparisons: Sequence[Comparison]) -> dict[str, Any]:
    """The page's data; `notes` name what could not be read or had to be left out."""
    runs, sidecars = _runs(results, comparisons), PageSidecars(results.folder)
    command = sidecars.json("sweep.json", dict).get("command")
    words = [str(word) for word in command] if isinstance(command, list) else []
    records, examples = sidecars.records(runs["run_id"]), sidecars.examples()
    scores, answers = sidecars.predictions(runs["run_id"], [example["id"] for example in examples])
    shown, empty = columns(runs)
    pairs, why = of_runs(runs, scores)
    return {
        "title": results.folder.resolve().name,
        "command": sweep_command(words) if words else "",
        "columns": shown,
        "empty": empty,
        "statuses": STATUSES,
        "kinds": list(KINDS),
        "runs": {column["key"]: values(runs[column["key"]]) for column in shown},
        "entry": runs["entry"].tolist(),
        "group": runs["group"].tolist(),
        "settings": [_setting(comparison, comparisons, scores) for comparison in comparisons],
        "verdicts": VERDICTS,
        "pairs": pairs,
        "no_pairs": why,
        "baselines": with_baseline(comparisons, runs) if pairs is None else [],
        "curves": _curves(results, sidecars),
        "metrics": _by_run(results.metrics, ("split", "metric", "value")),
        "sections": _by_run(results.sections, ("section", "seconds")),
        "examples": examples,
        "answers": [_answers(answers.get(run_id), examples) for run_id in runs["run_id"]],
        **_records(runs, records, words),
        "cards": _cards(sidecars),
        "notes": sidecars.notes,
    }


def _runs(results: Results, comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """Rows of runs.csv with the entry and the comparison (its place, -1 for none) they belong to."""
    runs: pd.DataFrame = results.runs.assign(entry=results.runs["strategy"], group=-1)
    for index in reversed(range(len(comparisons))):
        found = comparisons[index].runs.set_index("run_id")
        in_comparison = runs["run_id"].isin(found.index)
        for name in ("entry", "ttt_ratio", "memory_ratio"):
            runs.loc[in_comparison, name] = runs.loc[in_comparison, "run_id"].map(found[name])
        runs.loc[in_comparison, "group"] = index
    return runs


def values(series: pd.Series[Any]) -> list[Any]:
    """A column as plain values, six digits at most; missing numbers are None."""
    if series.dtype == object:
        return [str(value) for value in series]
    return [number(float(value)) for value in series]


def number(value: float) -> float | int | str | None:
    """One number for JSON: None for missing, NEVER for infinite, whole ones without a point."""
    if math.isnan(value):
        return None
    if math.isinf(value):
        return NEVER
    return int(value) if value == int(value) else float(f"{value:.6g}")


def _setting(comparison: Comparison, comparisons: Sequence[Comparison], scores: Scores) -> dict[str, Any]:
    """One comparison for the page: what it shares, its entries for the recipe box, what can be told apart."""
    entries, score = comparison.entries, comparison.score
    finished = entries[entries["num_ok"] > 0]
    recipes = finished[finished["kind"] != "control"]
    memory = next((name for name in MEMORY if len(recipes) and recipes[name].notna().all()), MEMORY[-1])
    kept = pd.DataFrame({name: entries[name] for name in ENTRY})
    for name, source in (("score", score), ("memory", memory)):
        for end in ("", "_low", "_high"):
            kept[f"{name}{end}"] = entries[f"{source}{end}"]
    rows = [{key: number(value) if isinstance(value, float) else value for key, value in row.items()}
            for row in kept.to_dict("records")]  # fmt: skip
    return {
        "title": heading(comparison, comparisons),
        "shared": {key: value for key, value in comparison.setting.items() if value},
        "findings": findings(comparison),
        "score": score,
        "memory": memory,
        "entries": rows,
        "seeds": int(comparison.runs["seed"].nunique()),
        "resolution": resolution(comparison),
        "pairs": of_recipes(comparison, scores),
    }


def resolution(comparison: Comparison) -> float | None:
    """Half the width of a usual 95 % interval of a difference to the baseline (median, 0 to 1); None if unknown."""
    rows = statements(comparison.paired)
    half = ((rows["high"] - rows["low"]) / 2).dropna()
    return None if half.empty else float(f"{half.median():.4g}")


def _curves(results: Results, sidecars: PageSidecars) -> dict[str, Any]:
    """history.csv by run and curve: steps, seconds, values; long ones thinned where all would be too much."""
    history = results.history.dropna(subset=["step", "value"])
    keep = MIN_CURVE_POINTS if len(history) > MAX_POINTS else len(history)
    if len(history) > MAX_POINTS:
        sidecars.notes.append(
            f"history.csv has {len(history):,} values; the page shows {MIN_CURVE_POINTS} of each learning curve"
        )
    found: dict[str, dict[str, Any]] = {}
    for (run_id, split, metric), rows in history.groupby(["run_id", "split", "metric"], sort=False):
        stride = max(1, math.ceil(len(rows) / max(keep, 1)))
        thinned = rows.iloc[::-stride][::-1]  # the last value is always among them
        curve = [
            [number(float(f"{value:.5g}")) for value in thinned[name]] for name in ("step", "train_seconds", "value")
        ]
        found.setdefault(str(run_id), {})[f"{split} {metric}"] = curve
    return found


def _by_run(frame: pd.DataFrame, names: tuple[str, ...]) -> dict[str, list[list[Any]]]:
    """Rows of a side CSV by run id."""
    found: dict[str, list[list[Any]]] = {}
    lists = [frame[name].tolist() if name in TEXT_COLUMNS else values(frame[name]) for name in names]
    for run_id, *row in zip(frame["run_id"], *lists, strict=True):
        found.setdefault(str(run_id), []).append(row)
    return found


def _answers(found: dict[str, Any] | None, examples: list[dict[str, Any]]) -> list[Any] | None:
    return None if found is None else [found.get(str(example["id"])) for example in examples]


def _records(runs: pd.DataFrame, records: list[dict[str, Any]], words: list[str]) -> dict[str, Any]:
    """Commands, specifications, logs and, each once, environments."""
    environments: list[dict[str, Any]] = []
    entries = []
    for row, record in zip(runs.to_dict("records"), records, strict=True):
        command, note = run_command({str(key): value for key, value in row.items()}, record.get("spec", {}), words)
        index = -1
        if environment := record.get("environment"):
            environments += [] if environment in environments else [environment]
            index = environments.index(environment)
        entries.append({
            "command": command, "note": note, "spec": record.get("spec"), "environment": index, "log": record["log"],
            "there": record["there"],
        })  # fmt: skip
    return {"records": entries, "environments": environments}


def _cards(sidecars: PageSidecars) -> dict[str, Any]:
    """What each strategy is: summary, text, papers."""
    cards = sidecars.json("strategies.json", dict)
    kinds = {"summary": str, "text": str, "papers": list}
    known = {name: card for name, card in cards.items() if isinstance(card, dict)}
    return {
        name: {key: card[key] for key, kind in kinds.items() if isinstance(card.get(key), kind)}
        for name, card in known.items()
    }
