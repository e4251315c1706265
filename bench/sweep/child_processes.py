"""Child processes of a sweep that are not runs: what needs torch is asked of them; the parent never loads it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.records.record import read_json, write_json
from bench.records.results_folder import InputError
from bench.sweep.matrix import with_baseline
from bench.sweep.request import Request
from strategies import NamedPlan

ROOT = Path(__file__).resolve().parents[2]


def prepare(request: Request, plans: Sequence[NamedPlan]) -> dict[str, Any]:
    """Ask a child process about task, data, model, device and every plan. InputError carries its one line."""
    scratch = Path(tempfile.mkdtemp(prefix="tunematrix-"))
    payload = {
        "task": request.task, "overrides": dict(request.overrides), "device": request.device,
        "plans": [str(named.plan) for named in plans], "batch_size": request.training.batch_size,
        "epochs": request.training.epochs, "max_steps": request.training.max_steps, "predict": not request.dry_run,
        "side_files": "" if request.dry_run else str(scratch / "side_files"),
    }  # fmt: skip
    (scratch / "side_files").mkdir()
    write_json(scratch / "request.json", payload)
    command = [
        sys.executable,
        "-m",
        "bench.sweep.prepare",
        str(scratch / "request.json"),
        str(scratch / "answer.json"),
    ]
    child = subprocess.run(command, stdout=sys.stderr, env=child_environment({}), check=False)
    if not (scratch / "answer.json").exists():
        raise InputError(f"looking at task and data failed (exit status {child.returncode}); its traceback is above")
    answer: dict[str, Any] = read_json(scratch / "answer.json")
    if "error" in answer:
        shutil.rmtree(scratch)
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
    with tempfile.TemporaryDirectory(prefix="tunematrix-") as scratch:
        file = Path(scratch) / "request.json"
        write_json(file, payload)
        command = [sys.executable, "-m", "bench.commands.plan", str(file)]
        return subprocess.run(command, env=child_environment({}), check=False).returncode


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Environment of a child: it finds this suite, and tasks in the current folder, on its path.

    OpenMP threads spin only briefly while they wait: with anything else running on two cores, GNU's default made a
    step of the tiny model 3 to 20 times slower; sleeping at once costs twice the time on a quiet machine. A value
    that is set already stays.
    """
    paths = [str(ROOT), str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"GOMP_SPINCOUNT": "20000", **os.environ, **extra, "PYTHONPATH": os.pathsep.join(paths)}
