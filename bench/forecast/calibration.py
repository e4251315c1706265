"""How many operations a second training reaches somewhere: the one calibration behind every predicted time.

From a finished run there, from a few updates on this machine, or, where nothing was measured, an assumed share of the
GPU's dense peak. Which of them it is, is said beside the figures. Recipes that are not bound by arithmetic (tiny
models, much unpacking, many small layers) take longer than this predicts.
"""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from bench.forecast.forecast import Forecaster
from bench.forecast.gpus import Gpu, match_gpu
from strategies import baseline
from strategies.prediction.values import UnpredictableError

ASSUMED_UTILISATION: Final = {"fp32": 0.6, "tf32": 0.35, "fp16": 0.35, "bf16": 0.35}  # shares of the peak, not measured
MAX_FLOPS: Final = 3e11  # of an update that is timed here; a smaller batch where it has more
NUM_UPDATES: Final = 4


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """Operations per second by precision, and where they come from, in words."""

    flops_per_second: Mapping[str, float]
    source: str

    def seconds(self, flops: float, precision: str) -> float | None:
        """Seconds for so many operations; None where nothing is known of the precision."""
        rate = self.flops_per_second.get(precision)
        return None if rate is None else flops / rate


def calibrate(forecaster: Forecaster, gpu: Gpu | None, runs: Path | None, batch_size: int) -> Throughput:
    """The rate to predict with: of runs that were named, assumed for a GPU, else measured here.

    ValueError when the runs named have nothing to calibrate with.
    """
    if runs is not None:
        return throughput_of_runs(runs, gpu)
    return assumed_throughput(gpu) if gpu else measure_throughput(forecaster, batch_size)


def assumed_throughput(gpu: Gpu) -> Throughput:
    """A share of the GPU's dense peaks; 16 bits of the other kind where one is not computed in hardware."""
    rates = {name: ASSUMED_UTILISATION[name] * peak * 1e12 for name, peak in gpu.tflops.items()}
    sixteen = rates.get("bf16") or rates.get("fp16")
    if sixteen:
        rates = {"bf16": sixteen, "fp16": sixteen, **rates}
    shares = (
        f"{ASSUMED_UTILISATION['fp32']:.0%} of the dense peak in fp32, {ASSUMED_UTILISATION['fp16']:.0%} in 16 bits"
    )
    return Throughput(flops_per_second=rates, source=f"assumed, not measured: {shares} (--calibration RUNS measures)")


def throughput_of_runs(path: Path, gpu: Gpu | None) -> Throughput:
    """What runs that trained every weight reached, by precision; others follow by the ratio of the GPU's peaks."""
    path = path / "runs.csv" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"--calibration {path}: no such file; name a results folder or its runs.csv")
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row.get("status") == "ok" and row.get("model_flops_per_sample")]
    elsewhere = {row["gpu_name"] or row["device"] for row in rows if gpu and match_gpu(row["gpu_name"]) != gpu}
    if gpu and elsewhere:
        raise ValueError(f"--calibration {path}: ran on {', '.join(sorted(elsewhere))}, not on --gpu {gpu.name}")
    found: dict[str, list[float]] = {}
    for row in rows:
        if (
            row["samples_per_second"]
            and not row.get("disturbed")
            and row["trainable_parameters"] == row["total_parameters"]
        ):
            rate = float(row["model_flops_per_sample"]) * float(row["samples_per_second"])
            found.setdefault(row["precision"], []).append(rate)
    if not found:
        raise ValueError(
            f"--calibration {path}: no finished run that trained every weight, counted its operations and was not "
            "disturbed by others"
        )
    rates = {precision: statistics.median(values) for precision, values in found.items()}
    peaks = gpu.tflops if gpu else {}
    shares = [rates[precision] / peak for precision, peak in peaks.items() if precision in rates]
    for precision, peak in peaks.items():
        if shares and precision not in rates:
            rates[precision] = statistics.median(shares) * peak
    return Throughput(flops_per_second=rates, source=f"calibrated with {sum(map(len, found.values()))} runs of {path}")


def measure_throughput(forecaster: Forecaster, batch_size: int) -> Throughput:
    """What full fine-tuning reaches here: the fastest of a few updates, on a batch that takes seconds at most."""
    plan, task = baseline(), forecaster.task
    try:
        operations = forecaster(plan, [batch_size])[0].flops
    except UnpredictableError as error:
        return Throughput(flops_per_second={}, source=f"not known, as full fine-tuning {error}")
    size = max(1, min(batch_size, int(batch_size * MAX_FLOPS / operations)))
    if size < batch_size:
        operations = forecaster(plan, [size])[0].flops
    with torch.random.fork_rng():
        tuned = plan.apply(task.build_model(), device=forecaster.device, total_steps=1000)
        batch = forecaster.largest_batch(plan, size)
        seconds = []
        for _ in range(NUM_UPDATES):
            started = time.perf_counter()
            float(tuned.step(task.loss, batch))  # reading the loss waits for the device
            seconds.append(time.perf_counter() - started)
    rate = operations / min(seconds)
    source = (
        f"measured here: {NUM_UPDATES} updates of full fine-tuning, {rate / 1e9:.0f} GFLOP/s, taken for every precision"
    )
    return Throughput(flops_per_second=dict.fromkeys(ASSUMED_UTILISATION, rate), source=source)
