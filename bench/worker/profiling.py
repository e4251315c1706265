"""What a training step is made of, in seconds: forward, backward, optimizer, waiting for data; and how busy the GPU is.

A few more steps after the run, so that nothing here slows a timed one. The device is waited for at the border of each
part, so the parts need not add up to a step of the run. What is computed again in the backward pass counts as backward,
as does an optimizer that works inside it; what members do before and around the passes counts as forward.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

if TYPE_CHECKING:
    from strategies import Tuned

STEPS: Final = 5
MAX_SECONDS: Final = 5.0  # a slow step is looked at once
# Methods of the engine.
PARTS: Final = {"backward": ("backward",), "optimizer": ("unscale_gradients", "clip", "update")}


@contextmanager
def stopwatch(engine: Any, synchronise: Callable[[], None]) -> Iterator[dict[str, float]]:
    """Inside, sum up the seconds that the engine's calls take, by part."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, work: Callable[..., None]) -> Callable[..., None]:
        def call(*arguments: Any) -> None:
            synchronise()
            start = time.perf_counter()
            work(*arguments)
            synchronise()
            seconds[part] += time.perf_counter() - start

        return call

    for part, names in PARTS.items():
        for name in names:
            setattr(engine, name, timed(part, getattr(engine, name)))
    try:
        yield seconds
    finally:
        for names in PARTS.values():
            for name in names:
                delattr(engine, name)  # which uncovers the class's own


def profile_step(
    tuned: Tuned, loss: Callable[..., Any], batches: Iterator[Any], synchronise: Callable[[], None]
) -> dict[str, float]:
    """`<part>_step_seconds` for the four parts: medians of up to `STEPS` whole updates on the batches that come."""
    tuned.step(loss, next(batches))  # after an evaluation something may have to be made again
    synchronise()
    samples: dict[str, list[float]] = {name: [] for name in ("forward", "data", *PARTS)}
    started = time.perf_counter()
    with stopwatch(tuned.engine, synchronise) as elapsed:
        for _ in range(STEPS):
            before, start = dict(elapsed), time.perf_counter()
            batch = next(batches)
            samples["data"].append(time.perf_counter() - start)
            tuned.step(loss, batch)
            synchronise()
            rest = time.perf_counter() - start - samples["data"][-1]
            for part in PARTS:
                samples[part].append(elapsed[part] - before[part])
                rest -= samples[part][-1]
            samples["forward"].append(rest)
            if time.perf_counter() - started > MAX_SECONDS:
                break
    return {f"{part}_step_seconds": statistics.median(values) for part, values in samples.items()}


def busy_seconds(step: Callable[[], object], times: int = 3) -> float:
    """Seconds per step in which the GPU computed or copied anything: the union of what its streams did."""
    with profile(activities=[ProfilerActivity.CUDA]) as prof:
        for _ in range(times):
            step()
        torch.cuda.synchronize()
    assert prof.profiler is not None
    results = prof.profiler.kineto_results
    assert results is not None
    intervals = [
        (event.start_ns(), event.start_ns() + event.duration_ns())
        for event in results.events()
        if event.device_type() == DeviceType.CUDA
    ]
    return union_length(intervals) / times / 1e9


def union_length(intervals: list[tuple[int, int]]) -> int:
    """Length of what the spans (start, end) cover together."""
    covered, reached = 0, 0
    for start, end in sorted(intervals):
        covered += max(0, end - max(start, reached))
        reached = max(reached, end)
    return covered
