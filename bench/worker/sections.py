"""Wall clock and peaks per section of a run, the device synchronised only where a section ends.

A section may be entered again (training pauses for an evaluation): its seconds add up, its peaks are maxima.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import torch

from bench.records.events import EventWriter
from bench.worker.cpu_time import CpuTimes
from bench.worker.sensors import Sensors


def private_bytes(process: str = "self") -> int:
    """Most memory that a process had of its own since its last reset (or its start); 0 for another one that is gone.

    Linux: anonymous pages, what was allocated; the files of libraries, which processes share, are left out. A forked
    process has those of its server, too. Elsewhere resident memory.
    """
    with suppress(OSError, KeyError):  # one that has ended and was not waited for has a status without memory
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
        peak, *shared = (int(status[name].split()[0]) * 1024 for name in ("VmHWM", "RssFile", "RssShmem"))
        return peak - sum(shared)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 if process == "self" else 0


def children_bytes(process: str = "self") -> int:
    """The same of all processes that it started and that are there still, such as compilers."""
    total = 0
    for children in Path(f"/proc/{process}/task").glob("*/children"):  # Linux; elsewhere the process alone
        with suppress(OSError):
            total += sum(private_bytes(child) + children_bytes(child) for child in children.read_text().split())
    return total


def reset_peak_rss() -> None:
    """Start a new peak where the kernel offers it (Linux); elsewhere peaks span the whole process."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def process_age() -> float:
    """Seconds since this process was started, to a hundredth; what psutil says can be a second off."""
    with suppress(OSError, AttributeError):
        ticks: int = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - float(psutil.Process().create_time())


class Clock:
    """Times sections and reports each to the run's event log; memory is counted from when the clock was made."""

    def __init__(self, emit: EventWriter, device: torch.device, sensors: Sensors | None = None) -> None:
        self._emit, self.device = emit, device
        self.sensors = sensors or Sensors(device)
        self.seconds: dict[str, float] = {}
        self._entered: tuple[str, float] | None = None
        reset_peak_rss()
        self.private_bytes_at_start = private_bytes()

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
        """Time a block under this name; its end is reported even when the block raises.

        What the marks themselves take is the section `measuring`, so that all add up to the run.
        """
        entered = time.perf_counter()
        self._emit("section", name=name)
        reset_peak_rss()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        self.synchronise()
        before = self._counters()
        start = time.perf_counter()
        self._entered = (name, start)
        try:
            yield
            self.synchronise()
        finally:
            end = time.perf_counter()
            spent = self._spent(before)
            self._entered = None
            self.seconds[name] = self.seconds.get(name, 0.0) + end - start
            self._emit("section_end", name=name, seconds=end - start, **spent, **self._peaks())
            self._emit("section_end", name="measuring", seconds=start - entered + time.perf_counter() - end)

    def _counters(self) -> tuple[CpuTimes, dict[str, float], float]:
        return CpuTimes(), self.sensors.counters(), time.time()

    def _spent(self, before: tuple[CpuTimes, dict[str, float], float]) -> dict[str, float | None]:
        """What the section took of the machine, and what others had of it meanwhile."""
        cpu, gpu, began = before
        spent: dict[str, float | None] = {**CpuTimes().since(cpu), "other_gpu_share": self.sensors.others_since(began)}
        return spent | {name: now - gpu[name] for name, now in self.sensors.counters().items() if name in gpu}

    def _peaks(self) -> dict[str, int | None]:
        own = max(0, private_bytes() - self.private_bytes_at_start)
        peaks: dict[str, int | None] = {"peak_rss_bytes": own, "tree_rss_bytes": own + children_bytes()}
        if self.device.type == "cuda":
            peaks["peak_allocated_bytes"] = torch.cuda.max_memory_allocated(self.device)
            peaks["peak_reserved_bytes"] = torch.cuda.max_memory_reserved(self.device)
            peaks["device_bytes"] = self.sensors.own_bytes()
        return peaks
