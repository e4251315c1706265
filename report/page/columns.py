"""What the page knows of each column: its name, its kind of number, and which direction is better.

Names are made from the schema's, whose units stand in their endings, so a new column needs nothing here. A column
that no run has filled is left out of the page's table and named there instead, but for what others did: where nothing
was seen there is nothing to name.
"""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from bench.records.record import DISTURBANCE_COLUMNS, RUN_COLUMNS, TEXT_COLUMNS
from report.frames.results import SHARES

NAMES: Final = {
    "strategy": "Recipe", "seed": "Seed", "status": "Status", "vqa_accuracy": "VQA accuracy", "accuracy": "Accuracy",
    "f1_macro": "F1 (macro)", "ttt_seconds": "Time to train (TTT)", "peak_allocated_bytes": "Peak memory",
    "peak_reserved_bytes": "Peak reserved", "peak_device_bytes": "Peak on device", "ttt_ratio": "TTT × full",
    "memory_ratio": "Peak × full", "energy_joules": "GPU energy", "samples_per_second": "Examples per second",
    "eval_samples_per_second": "Evaluation examples per second", "trainable_parameters": "Trained parameters",
    "cost_dollars": "Cost", "mfu": "MFU", "lr": "Learning rate", "head_lr": "Learning rate, new parts",
    "saved_bytes": "Saved size", "gpu_name": "GPU", "run_id": "Run", "reason": "Reason", "setting": "Setting",
    "time_to_target_seconds": "Time to target",
    "disturbed": "Disturbed", "cpu_seconds": "CPU time", "cpu_wait_share": "Waited for a CPU",
    "other_cpu_share": "CPUs in use by others", "cpu_pressure_share": "CPU pressure",
    "gpu_slowed_share": "GPU slowed by heat", "other_gpu_share": "GPU in use by others",
    "peak_rss_bytes": "Process memory", "peak_tree_rss_bytes": "Process memory with children",
}  # fmt: skip
ENDINGS: Final = {"_seconds": "seconds", "_bytes": "bytes", "_joules": "joules", "_dollars": "dollars"}
QUANTITIES: Final = {"_seconds": "_time", "_bytes": "_memory", "_joules": "", "_dollars": ""}
RATIOS: Final = {
    "ttt_ratio": "time to train over that of the baseline run of the same seed",
    "memory_ratio": "peak memory over that of the baseline run of the same seed",
}
SHOWN_FIRST: Final = (
    "strategy", "seed", "status", "disturbed", "vqa_accuracy", "accuracy", "f1_macro", "ttt_seconds", "ttt_ratio",
    "peak_allocated_bytes", "memory_ratio", "trainable_parameters", "samples_per_second", "energy_joules",
)  # fmt: skip
HIGHER_IS_BETTER: Final = frozenset({"mfu", "samples_per_second", "eval_samples_per_second", "tuning_best", *SHARES})
NO_DIRECTION: Final = frozenset({"tuning_spread", "other_gpu_bytes", "total_parameters", "predicted_peak_bytes"})
LOWER_IS_BETTER: Final = frozenset({"trainable_parameters", "steps_to_target", *RATIOS})
COUNTS: Final = frozenset({"trainable_parameters", "total_parameters", "model_flops_per_sample"})
HIDDEN: Final = frozenset({"run_id", "sweep"})  # they are no columns of the table; the record has them


def columns(runs: pd.DataFrame) -> tuple[list[dict[str, Any]], list[str]]:
    """Columns that some run has filled, those shown at first in front, and the names of all others."""
    known = [*RUN_COLUMNS, *RATIOS]
    order = [*SHOWN_FIRST, *(key for key in known if key not in SHOWN_FIRST)]
    filled = {key: key in runs and bool(_filled(runs[key])) for key in order}
    described = [_column(key) for key in order if filled[key]]
    return described, [key for key in known if not filled[key] and key not in {*RATIOS, *DISTURBANCE_COLUMNS}]


def _filled(values: pd.Series[Any]) -> bool:
    return bool((values.notna() & (values != "")).any())


def _column(key: str) -> dict[str, Any]:
    return {
        "key": key,
        "name": NAMES.get(key) or _name(key),
        "kind": _kind(key),
        "better": _better_direction(key),
        "help": (RUN_COLUMNS.get(key) or RATIOS[key]).replace(", 0 to 1", ""),  # the page shows percent
        "first": key in SHOWN_FIRST,
        "hidden": key in HIDDEN,
    }


def _name(key: str) -> str:
    for ending, word in QUANTITIES.items():
        key = key.removesuffix(ending) + word if key.endswith(ending) else key
    return key.replace("_", " ").capitalize()


def _kind(key: str) -> str:
    if key in TEXT_COLUMNS:
        return "text"
    if key in SHARES or key.endswith("_share") or key in {"mfu", "tuning_best", "tuning_spread"}:
        return "share"
    if key in COUNTS:
        return "count"
    if key in RATIOS:
        return "ratio"
    if key.endswith("_per_second"):
        return "rate"
    return next((kind for ending, kind in ENDINGS.items() if key.endswith(ending)), "number")


def _better_direction(key: str) -> str:
    """Which direction is better: high, low, or empty where that means nothing."""
    if key in HIGHER_IS_BETTER:
        return "high"
    if key not in {*NO_DIRECTION, *DISTURBANCE_COLUMNS} and (key in LOWER_IS_BETTER or key.endswith(tuple(ENDINGS))):
        return "low"
    return ""
