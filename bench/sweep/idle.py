"""--require-idle: whether others use this machine before a sweep begins, and what is to be said of disturbed runs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import psutil

from bench.records.disturbance import MIN_OTHER_CPUS
from bench.records.results_folder import InputError
from bench.worker.cpu_time import CpuTimes

WATCHED_SECONDS: Final = 1.0
MIN_SHARE: Final = 0.02  # of many CPUs: what a large machine does for itself is not work
NAMED: Final = 4


def refuse_if_busy() -> None:
    """InputError, with the busiest process, when others use as much of the CPUs as may mark a run as disturbed."""
    before, processes = CpuTimes(), cpu_seconds_by_process()
    time.sleep(WATCHED_SECONDS)
    after = CpuTimes()
    spent = after.since(before)
    if "other_cpu_seconds" not in spent:
        raise InputError("--require-idle: this system does not tell who uses its CPUs; leave the option out")
    used = spent["other_cpu_seconds"] / (after.clock - before.clock)
    if used >= max(MIN_OTHER_CPUS, MIN_SHARE * len(after.cpus)):
        raise InputError(
            f"--require-idle: others use {used:.1f} of {len(after.cpus)} CPUs{busiest(processes)}; wait until they are "
            "done, or leave the option out: runs that are disturbed will be marked"
        )


def cpu_seconds_by_process() -> dict[int, float]:
    """CPU seconds so far of every process that can be seen."""
    found = psutil.process_iter(["cpu_times"])
    return {process.pid: sum(process.info["cpu_times"][:2]) for process in found if process.info["cpu_times"]}


def busiest(before: Mapping[int, float]) -> str:
    """The process that used most CPU time since then, in brackets; empty where none is seen at work."""
    spent = {pid: seconds - before.get(pid, seconds) for pid, seconds in cpu_seconds_by_process().items()}
    pid = max(spent, key=lambda pid: spent[pid], default=0)
    if not spent.get(pid):
        return ""
    try:
        return f" (most by {psutil.Process(pid).name()}, process {pid})"
    except psutil.Error:
        return ""


def disturbed_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which runs were disturbed, by what, what that means and how to repair it; empty where none was."""
    disturbed = [row for row in rows if row.get("disturbed")]
    if not disturbed:
        return []
    named = [f"{row['strategy']} (seed {row['seed']}): {row['disturbed']}" for row in disturbed]
    more = [f"and {len(named) - NAMED} more"] if len(named) > NAMED else []
    return [
        f"Disturbed by other work on the machine, so without ratios of time: {len(disturbed)} of {len(rows)} runs.",
        *(f"  {line}" for line in [*named[:NAMED], *more]),
        "On a quiet machine the same command with --require-idle runs them again.",
    ]
