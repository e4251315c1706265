"""The table of `run_matrix.py plan`, and the columns of plan.csv."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from bench.sweep.progress import duration
from bench.sweep.table import count, print_table

PLAN_COLUMNS: Final[dict[str, str]] = {
    "strategy": "the recipe as typed",
    "plan": "the recipe with aliases expanded, in canonical order",
    "verdict": "fits | does not fit | refused | unavailable | unknown",
    "reason": "why not, and what would help",
    "batch_size": "examples per optimizer update",
    "peak_bytes": "predicted peak of a training step",
    "weights_bytes": "parameters and buffers, quantisation state included",
    "gradients_bytes": "gradients alive at the peak",
    "optimizer_bytes": "optimizer state",
    "activations_bytes": "the rest of the peak: saved activations and temporaries",
    "largest_batch_size": "about the most examples per update that fit",
    "flops_per_sample": "operations for one training example, a product and a sum counted as two",
    "steps": "optimizer updates of the whole training",
    "train_seconds": "predicted time of all updates",
    "cost_dollars": "that time at the GPU's price",
    "trainable_parameters": "parameters that get a gradient",
    "total_parameters": "all parameters",
}
GIB: Final = 2**30
SMALL: Final = 2**28  # below it sizes are told in MiB


def size(value: float | None) -> str:
    """Bytes as people read them: MiB, from a quarter of a GiB on GiB."""
    if value is None:
        return ""
    return f"{value / 2**20:.1f} MiB" if value < SMALL else f"{value / GIB:.2f} GiB"


def cells(row: Mapping[str, Any]) -> list[str]:
    """One row of the table."""
    if "peak_bytes" not in row:
        return [row["strategy"], row["verdict"], *[""] * 9, row["reason"]]
    parts = [size(row[f"{kind}_bytes"]) for kind in ("weights", "gradients", "optimizer", "activations")]
    seconds, cost = row["train_seconds"], row["cost_dollars"]
    return [
        row["strategy"], row["verdict"], size(row["peak_bytes"]), *parts,
        "" if row["largest_batch_size"] is None else f"{row['largest_batch_size']}",
        f"{row['flops_per_sample'] / 1e9:.3g}", "" if seconds is None else duration(seconds),
        "" if cost is None else f"${cost:.2f}", row["reason"] or f"{count(row['trainable_parameters'])} train",
    ]  # fmt: skip


def print_plan(rows: Sequence[Mapping[str, Any]], device_name: str, budget_bytes: float, source: str) -> None:
    """Print what was predicted, where it comes from, and how far to trust it."""
    columns = ["recipe", "verdict", "peak", "weights", "gradients", "optimizer", "activations", "batch up to"]
    columns += ["GFLOP/example", "time", "cost", ""]
    lines = [cells(row) for row in rows]
    kept = [index for index in range(len(columns)) if any(line[index] for line in lines)]
    table = [[line[index] for index in kept] for line in lines]
    print_table([columns[index] for index in kept], table, right=range(2, len(kept) - 1))
    sizes = {row["batch_size"] for row in rows}
    steps = {row["steps"] for row in rows if "steps" in row}
    print(
        f"For {device_name}: {size(budget_bytes)} for the allocator. Batch {', '.join(map(str, sorted(sizes)))}, "
        f"{', '.join(map(str, sorted(steps)))} updates. Nothing was trained."
    )
    print(f"Time: {source}. Peak: predicted from shapes; kernels' own temporaries and compiling are not seen.")
