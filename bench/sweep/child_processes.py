"""Child processes of a sweep that are not runs: what needs torch is asked of them; the parent never loads it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from bench.processes.scratch import scratch_folder
from bench.processes.start import run_child
from bench.records.json_files import read_json, write_json
from bench.records.results_folder import InputError
from bench.sweep.matrix import with_baseline
from bench.sweep.request import Request
from strategies import NamedPlan

# What every run and every look at a sweep imports.
PRELOADED: Final = ("bench.worker.__main__", "bench.sweep.prepare", "sklearn.metrics", "pyarrow.parquet")


def modules_to_preload(task: str, plans: Sequence[NamedPlan]) -> list[str]:
    """Modules that the children of a sweep need, in the order to import them: the suite's, the task's, the plans'."""
    packages = {package for named in plans for member in named.plan.members for package in member.packages}
    return [task.partition("(")[0], *PRELOADED, *sorted(packages)]


def prepare(request: Request, plans: Sequence[NamedPlan], scratch: Path) -> dict[str, Any]:
    """Ask a child process about task, data, model, device and every plan. InputError carries its one line.

    scratch: an empty folder, which what the answer names lies in.
    """
    payload = {
        "task": request.task, "overrides": dict(request.overrides), "device": request.device,
        "plans": [str(named.plan) for named in plans], "batch_size": request.training.batch_size,
        "epochs": request.training.epochs, "max_steps": request.training.max_steps, "predict": not request.dry_run,
        "require_idle": request.require_idle and not request.dry_run,
        "side_files": "" if request.dry_run else str(scratch / "side_files"),
    }  # fmt: skip
    (scratch / "side_files").mkdir()
    write_json(scratch / "request.json", payload)
    status = run_child("bench.sweep.prepare", [scratch / "request.json", scratch / "answer.json"], output=2)
    if not (scratch / "answer.json").exists():
        raise InputError(f"looking at task and data failed (exit status {status}); its traceback is above")
    answer: dict[str, Any] = read_json(scratch / "answer.json")
    if "error" in answer:
        raise InputError(answer["error"])
    return answer | {"side_files": scratch / "side_files"}


def run_plan(request: Request, *, gpu: str, calibration: str, out: Path | None) -> int:
    """Have a child process predict what was asked for and print it; gives its exit status."""
    training = request.training
    payload = {
        "task": request.task, "overrides": dict(request.overrides), "device": request.device, "gpu": gpu,
        "plans": [(named.text, str(named.plan)) for named in with_baseline(request.plans, include=request.baseline)],
        "batch_size": training.batch_size, "epochs": training.epochs, "max_steps": training.max_steps,
        "calibration": calibration, "out": str(out or ""),
    }  # fmt: skip
    with scratch_folder() as scratch:
        file = scratch / "request.json"
        write_json(file, payload)
        return run_child("bench.commands.plan", [file])
