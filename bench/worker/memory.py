"""How much memory one training step needs, and for what.

Two instruments over a few extra steps after the run, so that neither slows a timed step: the allocator itself (CUDA
statistics; on CPU the profiler's allocation events, since resident memory is noise), and the storage tracker, which
knows what the bytes are for. The tracker disables torch.compile, so the split of a compiled run is that of its eager
twin, and the peak is the allocator's.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch.profiler import ProfilerActivity, profile

from strategies.prediction.storage_tracker import StorageTracker, mark_resident, measure_update

if TYPE_CHECKING:
    from strategies import Tuned


def allocation_peak(step: Callable[[], object]) -> int:
    """Most bytes the CPU allocator held above its level at the start while `step` ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as prof:
        step()
    assert prof.profiler is not None
    results = prof.profiler.kineto_results
    assert results is not None
    events = [(event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"]
    level = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        level += size
        peak = max(peak, level)
    return peak


def allocator_retries(device: torch.device) -> dict[str, int]:
    """How often the CUDA caching allocator had to give memory back and try again, and how often that was in vain."""
    if device.type != "cuda":
        return {}
    stats = torch.cuda.memory_stats(device)
    return {name: stats.get(name, 0) for name in ("num_alloc_retries", "num_ooms")}


def write_snapshot(step: Callable[[], object], file: Path) -> None:
    """Write every allocation of one step, with where in the code it was made: a pickle for pytorch.org/memory_viz."""
    torch.cuda.memory._record_memory_history()  # noqa: SLF001 -- torch's documented way
    try:
        step()
        torch.cuda.memory._dump_snapshot(str(file))  # noqa: SLF001
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)  # noqa: SLF001


def probe(tuned: Tuned, step: Callable[[], object]) -> dict[str, int]:
    """Peak of a steady training step and its split, in bytes.

    step: one whole optimizer update on the largest batch. Returns `peak_allocated_bytes` (CPU only: on CUDA
    the training sections have measured it) and `<kind>_bytes` for the four kinds.
    """
    step()
    measured: dict[str, int] = {}
    if tuned.device.type == "cpu":
        measured["peak_allocated_bytes"] = mark_resident(tuned, StorageTracker()).live_bytes + allocation_peak(step)
    kinds = dict(measure_update(tuned, step).peak_by_kind)
    if tuned.device.type == "cpu":
        kinds["activations"] = measured["peak_allocated_bytes"] - sum(
            size for kind, size in kinds.items() if kind != "activations"
        )
    return measured | {f"{kind}_bytes": size for kind, size in kinds.items()}
