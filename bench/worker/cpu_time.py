"""Who had the CPUs while a section ran: this run, or others; read where a section begins and where it ends.

The kernel counts for each thread how long it was ready and waited for a CPU (`schedstat`); for each CPU how long it was
busy with anything, or taken away by the host (`/proc/stat`); and how long anything waited (`/proc/pressure/cpu`).
What the system does not tell (macOS, some containers) is missing, never zero. Imports no torch: sweeps ask here, too.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

BUSY_FIELDS: Final = (1, 2, 3, 6, 7, 8)  # of a line of /proc/stat: user, nice, system, irq, softirq, steal
ABSENT: Final = (OSError, IndexError, ValueError)  # no such file, a thread that ended meanwhile, another form


def available_cpus() -> set[int]:
    """The CPUs that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return set(range(os.cpu_count() or 1))


def thread_waits() -> dict[str, float]:
    """Seconds that each thread of this process was ready to run and waited for a CPU; empty where nobody counts."""
    found = {}
    for file in Path("/proc/self/task").glob("*/schedstat"):
        with suppress(*ABSENT):
            found[file.parent.name] = int(file.read_text().split()[1]) / 1e9
    return found


def own_seconds() -> float:
    """CPU seconds of this process and of all that it started, as far as these are there still or were waited for."""
    ended = os.times()
    waited_for = ended.children_user + ended.children_system
    return time.process_time() + waited_for + sum(map(tree_seconds, _children("self")))


def tree_seconds(process: str) -> float:
    """CPU seconds of another process and of all that it started; 0 for one that is gone."""
    with suppress(*ABSENT):
        times = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[11:15]
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK") + sum(map(tree_seconds, _children(process)))
    return 0.0


def _children(process: str) -> list[str]:
    found = []
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(*ABSENT):
            found += children.read_text().split()
    return found


def busy_seconds(cpus: set[int]) -> float | None:
    """Seconds that these CPUs were busy with anything since the system began, or taken away by the host."""
    names = {f"cpu{number}" for number in cpus}
    with suppress(*ABSENT):
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
        found = [int(line[place]) for line in lines if line[0] in names for place in BUSY_FIELDS]
        return sum(found) / os.sysconf("SC_CLK_TCK") if found else None
    return None


def pressure_seconds() -> float | None:
    """Seconds in which something, anywhere on the system, waited for a CPU; None where the kernel does not say."""
    with suppress(*ABSENT):
        return int(Path("/proc/pressure/cpu").read_text().split("total=")[1].split()[0]) / 1e6
    return None


def involuntary_switches() -> int:
    """How often a thread of this process had to leave its CPU to others."""
    import resource  # not on Windows, where the command line has a word for it

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


@dataclass(frozen=True)
class CpuTimes:
    """All counters at the moment it is made; None, or no threads, where the system has no such counter."""

    cpus: set[int] = field(default_factory=available_cpus)
    own: float = field(default_factory=own_seconds)
    busy: float | None = field(default_factory=lambda: busy_seconds(available_cpus()))
    pressure: float | None = field(default_factory=pressure_seconds)
    waits: dict[str, float] = field(default_factory=thread_waits)
    clock: float = field(default_factory=time.perf_counter)
    switches: int = field(default_factory=involuntary_switches)

    def since(self, before: CpuTimes) -> dict[str, float]:
        """What passed between two moments; counters that are not there are left out."""
        found: dict[str, float] = {
            "cpu_seconds": self.own - before.own,
            "involuntary_switches": self.switches - before.switches,
        }
        if self.busy is not None and before.busy is not None:
            found["available_cpu_seconds"] = (self.clock - before.clock) * len(self.cpus)
            found["other_cpu_seconds"] = max(0.0, self.busy - before.busy - found["cpu_seconds"])
        if self.pressure is not None and before.pressure is not None:
            found["cpu_pressure_seconds"] = self.pressure - before.pressure
        if self.waits:
            waited = (seconds - before.waits.get(thread, 0.0) for thread, seconds in self.waits.items())
            found["cpu_wait_seconds"] = sum(waited)
        return found
