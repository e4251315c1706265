"""A run's record: everything known about it, folded into one file that is written last."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from bench.forecast.utilisation import utilisation
from bench.records.disturbance import disturbance_columns
from bench.records.events import RunResult
from bench.records.files import sync_tree
from bench.records.json_files import sealed, write_json
from bench.records.record import SCHEMA_VERSION, TUNING_COLUMNS
from bench.records.run_records import RECORD_FILE, hashes, read_run
from bench.records.spec import RunSpec
from bench.sweep.request import LaunchOptions


def write_record(spec: RunSpec, result: RunResult, folder: Path, options: LaunchOptions) -> dict[str, Any]:
    """Fold everything known about a run into its record and write it atomically."""
    row: dict[str, Any] = {
        "run_id": spec.run_id, "sweep": options.sweep, "strategy": spec.strategy, **sweep_columns(spec),
        "plan": spec.plan, "task": spec.task, "model": spec.model_name, "dataset": spec.dataset, "seed": spec.seed,
        "status": result.status, "reason": result.reason, "section": result.section, "device": spec.device,
        "batch_size": spec.batch_size, "lr": spec.lr, "head_lr": spec.head_lr,
        "predicted_peak_bytes": spec.predicted_peak_bytes, "model_flops_per_sample": spec.model_flops_per_sample,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip
    if "load" in result.sections:
        row["load_seconds"] = result.sections["load"]["seconds"]
    row |= training_totals(result) | disturbance_columns(result.sections, result.environment)
    row |= result.row | options.columns
    row |= {key: result.environment.get(key) for key in ("gpu_name", "environment_hash")}
    row |= utilisation(row, spec.members)
    memory = {k.removesuffix("_bytes"): row[k] for k in row if k in _MEMORY_COLUMNS}
    record = sealed({
        "schema": SCHEMA_VERSION, "run_id": spec.run_id, "spec": spec.to_json(),
        "row": {key: value for key, value in row.items() if value not in (None, "")},
        "sections": result.sections, "history": result.history, "metrics": result.metrics, "memory": memory,
        "environment": result.environment, "files": hashes(folder),
    })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    sync_tree(folder)  # first weights, events and predictions, then the record that stands for them
    write_json(folder / RECORD_FILE, record)
    return record


def sweep_columns(spec: RunSpec) -> dict[str, Any]:
    """Columns that say what a run is in the sweep that asked for it; in another the same run may be something else."""
    return dict.fromkeys(TUNING_COLUMNS) | {"kind": spec.kind, "setting": spec.setting, **(spec.tuning or {})}


def relabel(spec: RunSpec, folder: Path) -> None:
    """Let a finished run's record say what the run is in this sweep; what was measured stays as it is."""
    record = read_run(folder)
    row = {**record["row"], **sweep_columns(spec)}
    row = {key: value for key, value in row.items() if value not in (None, "")}
    if row != record["row"]:
        excluded = {"kind": spec.kind, "setting": spec.setting, "tuning": spec.tuning}
        write_json(folder / RECORD_FILE, sealed({**record, "row": row, "spec": {**record["spec"], **excluded}}))


_MEMORY_COLUMNS = frozenset({"weights_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes"})


# Columns that are the most, or the sum, of what the training sections have under a name; the GPU's on CUDA only.
_TRAINING_COLUMNS: Final[dict[str, tuple[str, Callable[[list[float]], float]]]] = {
    "peak_allocated_bytes": ("peak_allocated_bytes", max),
    "peak_reserved_bytes": ("peak_reserved_bytes", max),
    "peak_device_bytes": ("device_bytes", max),
    "peak_rss_bytes": ("peak_rss_bytes", max),
    "peak_tree_rss_bytes": ("tree_rss_bytes", max),
    "energy_joules": ("energy_joules", sum),
}


def training_totals(result: RunResult) -> dict[str, float]:
    """Peaks and energy of the training sections."""
    parts = [result.sections[name] for name in ("warmup", "train") if name in result.sections]
    found = {
        column: (work, [part[name] for part in parts if name in part])
        for column, (name, work) in _TRAINING_COLUMNS.items()
    }
    return {column: work(values) for column, (work, values) in found.items() if values}
