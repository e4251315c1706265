"""What a run's figures mean on its GPU: the share of the peak that the model's own operations reached, and the price.

MFU counts the operations of full fine-tuning of the plain model, once, so recomputing does not count. It is left out
where it would mean nothing: no known peak, weights that rest (they need fewer operations), a member that feeds
otherwise and so leaves work out, or one that computes in numbers which the run's precision does not tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.forecast.gpus import match_gpu
from strategies import Strategy, catalogue


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
    plain = all(_counts_plain_model(catalogue()[member["name"]]) for member in members)
    if peak and speed and row.get("model_flops_per_sample") and whole and plain:
        found["mfu"] = row["model_flops_per_sample"] * speed / (peak * 1e12)
    return found


def _counts_plain_model(member: type[Strategy]) -> bool:
    """Whether a run with this member does the plain model's work, in the precision that it tells."""
    declares_precision = member.facts is not Strategy.facts
    return member.kind != "data" and (member.kind != "numerics" or declares_precision)
