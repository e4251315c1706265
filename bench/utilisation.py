"""What a run's figures mean on its GPU: the share of the peak that the model's own operations reached, and the price.

MFU counts the operations of full fine-tuning of the plain model, once, so recomputing does not count. It is left out
where it would mean nothing: no known peak, weights that rest (they need fewer operations), or a member that feeds
otherwise and so leaves work out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.gpus import match_gpu
from strategies import catalogue


def utilisation(row: Mapping[str, Any], members: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """`mfu` and `cost_dollars` of a run's row, those that are defined."""
    gpu = match_gpu(row.get("gpu_name") or "")
    if gpu is None:
        return {}
    found = {}
    if gpu.dollars_per_hour is not None and "ttt_seconds" in row:
        found["cost_dollars"] = row["ttt_seconds"] / 3600 * gpu.dollars_per_hour
    peak, speed = gpu.tflops.get(row.get("precision", "")), row.get("samples_per_second")
    whole = row.get("trainable_parameters") == row.get("total_parameters")
    fed_as_usual = all(catalogue()[member["name"]].kind != "data" for member in members)
    if peak and speed and row.get("model_flops_per_sample") and whole and fed_as_usual:
        found["mfu"] = row["model_flops_per_sample"] * speed / (peak * 1e12)
    return found
