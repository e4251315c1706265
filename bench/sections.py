"""Wall clock and peaks per section of a run, the device synchronised only where a section ends.

A section may be entered again (training pauses for an evaluation): its seconds add up, its peaks are maxima.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from bench.events import EventWriter


def peak_rss_bytes() -> int:
    """Most resident memory of this process since the last reset (or since its start)."""
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def reset_peak_rss() -> None:
    """Start a new peak where the kernel offers it (Linux); elsewhere peaks span the whole process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


class Clock:
    """Times sections and reports each to the run's event log."""

    def __init__(self, emit: EventWriter, device: torch.device) -> None:
        self._emit, self.device = emit, device
        self.seconds: dict[str, float] = {}
        self._entered: tuple[str, float] | None = None

    def synchronise(self) -> None:
        """Wait for the device; nothing to wait for on CPU."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def elapsed(self, *names: str) -> float:
        """Seconds spent in these sections, the one under way included."""
        total = sum(self.seconds.get(name, 0.0) for name in names)
        if self._entered and self._entered[0] in names:
            total += time.perf_counter() - self._entered[1]
        return total

    @contextmanager
    def section(self, name: str) -> Iterator[None]:
        """Time a block under this name; its end is reported even when the block raises."""
        self._emit("section", name=name)
        reset_peak_rss()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.synchronise()
        self._entered = (name, time.perf_counter())
        try:
            yield
            self.synchronise()
        finally:
            seconds = time.perf_counter() - self._entered[1]
            self._entered = None
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds
            self._emit("section_end", name=name, seconds=seconds, **self._peaks())

    def _peaks(self) -> dict[str, int]:
        peaks = {"peak_rss_bytes": peak_rss_bytes()}
        if self.device.type == "cuda":
            peaks["peak_allocated_bytes"] = torch.cuda.max_memory_allocated(self.device)
            peaks["peak_reserved_bytes"] = torch.cuda.max_memory_reserved(self.device)
        return peaks
