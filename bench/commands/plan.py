"""The `plan` command, in a child process: what recipes will need, whether that fits, how long it takes and costs.

`python -m bench.commands.plan REQUEST` looks at every recipe on tensors without values (nothing is trained), then
prints a table and writes plan.csv where a folder is named. Memory comes from the prediction; time from operations and
*one* calibration: a finished run on that device, a short measurement on this machine, or, said so, an assumed share of
the GPU's peak.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

from bench.commands.plan_table import PLAN_COLUMNS, print_plan
from bench.forecast.calibration import Throughput, calibrate
from bench.forecast.forecast import Forecaster
from bench.forecast.gpus import Gpu, find_gpu
from bench.processes.lifetime import end_as
from bench.records.collect import csv_text
from bench.records.json_files import read_json
from bench.sweep.prepare import choose_device
from bench.task import Task, load_task
from strategies import Plan, PlanError, compose
from strategies.execution.feed import tensors_of
from strategies.language.presets import REMEDIES
from strategies.prediction.predict import Prediction
from strategies.prediction.values import UnpredictableError
from strategies.quiet import quiet

FRAGMENTATION: Final = 1.05  # allocator's rounding and fragmentation


@dataclass(frozen=True)
class TargetDevice:
    """Where the recipes are to run: a GPU of the table, or this machine."""

    gpu: Gpu | None
    device: str

    @property
    def budget_bytes(self) -> float:
        """What the allocator may hold at the peak, as predicted."""
        if self.gpu is None:
            return float(psutil.virtual_memory().total) / FRAGMENTATION
        return (self.gpu.memory_bytes - self.gpu.context_bytes) / FRAGMENTATION

    @property
    def name(self) -> str:
        """Name for people."""
        return self.gpu.name if self.gpu else f"this machine ({self.device})"


@dataclass
class Planner:
    """Looks at recipes one after another."""

    forecaster: Forecaster
    target: TargetDevice
    batch_size: int
    throughput: Throughput

    def row(self, text: str, plan: Plan) -> dict[str, Any]:
        """One row of the plan: what is predicted, or why it cannot be."""
        row: dict[str, Any] = {"strategy": text, "plan": str(plan), "batch_size": self.batch_size}
        problems = plan.problems(self.target.device, item=self.forecaster.items[0])
        if problems:
            return row | {"verdict": problems[0].kind, "reason": "; ".join(problem.reason for problem in problems)}
        try:
            predicted, doubled = self.forecaster(plan, [self.batch_size, 2 * self.batch_size])
        except UnpredictableError as error:
            return row | {"verdict": "unknown", "reason": str(error)}
        except PlanError as error:
            return row | {"verdict": "refused", "reason": str(error)}
        return row | self.memory(plan, predicted, doubled) | self.time(plan, predicted)

    def memory(self, plan: Plan, predicted: Prediction, doubled: Prediction) -> dict[str, Any]:
        """Memory by kind, the largest batch, and whether it fits."""
        batch, workspace = self.batch_bytes(plan), self.target.gpu.workspace_bytes if self.target.gpu else 0
        peak = predicted.peak_bytes + batch + workspace
        slope = (doubled.peak_bytes + (2 * batch) + workspace - peak) / self.batch_size
        max_batch_size = int((self.target.budget_bytes - peak) / slope + self.batch_size) if slope > 0 else None
        fits = peak <= self.target.budget_bytes
        advice = [] if fits else [self.advice(plan, max_batch_size)]
        return {
            "peak_bytes": peak, **{f"{kind}_bytes": size for kind, size in predicted.by_kind.items()},
            "largest_batch_size": None if max_batch_size is None else max(0, max_batch_size),
            "verdict": "fits" if fits else "does not fit",
            "reason": "; ".join([*advice, *(f"at most, as {note}" for note in predicted.notes)]),
            "trainable_parameters": predicted.trainable_parameters, "total_parameters": predicted.total_parameters,
        }  # fmt: skip

    def batch_bytes(self, plan: Plan) -> int:
        """Bytes of a batch, which lies on a GPU, too; only a prediction on CUDA's own tensors has seen it go there."""
        is_predicted = self.target.gpu is None or self.target.device != "cpu"
        batch = self.forecaster.largest_batch(plan, self.batch_size)
        return 0 if is_predicted else sum(tensor.nbytes for tensor in tensors_of(batch))

    def time(self, plan: Plan, predicted: Prediction) -> dict[str, Any]:
        """Operations, seconds and dollars of the whole training."""
        seconds = self.throughput.seconds(predicted.flops, str(plan.facts(self.target.device)["precision"]))
        steps = self.forecaster.steps(self.batch_size)
        price = self.target.gpu.dollars_per_hour if self.target.gpu else None
        return {
            "flops_per_sample": predicted.flops / self.batch_size, "steps": steps,
            "train_seconds": None if seconds is None else seconds * steps,
            "cost_dollars": None if seconds is None or price is None else seconds * steps * price / 3600,
        }  # fmt: skip

    def advice(self, plan: Plan, max_batch_size: int | None) -> str:
        """What makes a recipe fit: the first of the remedies that does, or a smaller batch."""
        remedies = []
        for remedy in REMEDIES:
            try:
                remedied = compose(f"{plan}+{remedy}")
                if remedied.problems(self.target.device):
                    continue
                peak = self.forecaster(remedied, [self.batch_size])[0].peak_bytes
            except (PlanError, UnpredictableError):
                continue
            if peak <= self.target.budget_bytes:
                remedies.append(f"add {remedy} ({peak / 2**30:.1f} GiB)")
                break
        if max_batch_size and max_batch_size > 0:
            remedies.append(f"--batch-size {max_batch_size}")
        return " or ".join(remedies) or "no remedy known here makes it fit"


def plan_all(request: Mapping[str, Any]) -> tuple[list[dict[str, Any]], Planner]:
    """Look at every recipe of a request. ValueError when task, data, GPU or calibration cannot be used."""
    gpu = find_gpu(request["gpu"]) if request["gpu"] else None
    device = choose_device(request["device"])
    task: Task = load_task(request["task"], request["overrides"])
    task.prepare()
    batch_size = request["batch_size"] or task.default_batch_size
    forecaster = Forecaster(task, device, request["epochs"], request["max_steps"])
    runs = Path(request["calibration"]) if request["calibration"] else None
    throughput = calibrate(forecaster, gpu, runs, batch_size)
    planner = Planner(forecaster, TargetDevice(gpu, device), batch_size, throughput)
    plans = [(text, compose(plan)) for text, plan in request["plans"]]
    return [planner.row(text, plan) for text, plan in progress(plans)], planner


def progress(plans: Sequence[tuple[str, Plan]]) -> Iterable[tuple[str, Plan]]:
    """The plans one by one, with a bar on a terminal's standard error."""
    from rich.console import Console
    from rich.progress import track

    shown = sys.stderr.isatty()
    return track(plans, "predicting", console=Console(stderr=True), transient=True, disable=not shown)


@quiet()
def main(arguments: Sequence[str]) -> int:
    """Answer a request file; a problem with the user's input is told in one line, status 2."""
    request = read_json(Path(arguments[0]))
    try:
        rows, planner = plan_all(request)
    except (ValueError, OSError) as error:
        print(f"run_matrix.py: plan: {error}", file=sys.stderr)
        return 2
    print_plan(rows, planner.target.name, planner.target.budget_bytes, planner.throughput.source)
    if request["out"]:
        out = Path(request["out"])
        out.mkdir(parents=True, exist_ok=True)
        (out / "plan.csv").write_text(csv_text(PLAN_COLUMNS, rows), encoding="utf-8")
        print(f"Also in {out / 'plan.csv'}")
    return 0


if __name__ == "__main__":
    end_as(main)
