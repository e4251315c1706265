"""Whether others disturbed a run, told from what its sections recorded: pure, so recorded figures can be asked again.

A run is disturbed when others took so much of the machine while it trained that its times say little about its recipe
(limits: docs/decisions/0024). That its own threads and compilers wait for each other is the recipe's own affair, so
waiting alone is no mark. What was not measured marks nothing. Standard library only, as part of the schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

Sections = Mapping[str, Mapping[str, Any]]

TRAINING: Final = ("warmup", "train")
MIN_SECONDS: Final = 1.0  # of training; the counters have ticks of 10 ms, so of less nothing is said
MIN_OTHER_CPUS: Final = 0.2  # CPUs in use by others; however many there are, one thread that waits holds up all
MIN_WAIT: Final = 0.05  # of the time in which the run's threads want a CPU
MIN_GPU: Final = 0.05
POWER_CAP: Final = "power cap"  # holds a clock down the same way each time: no disturbance

RUN_COLUMNS: Final[dict[str, str]] = {
    "cpu_seconds": "CPU time of the run's processes while it trained, warm-up included; so for all that follow here",
    "cpu_wait_share": "of the time in which its threads wanted a CPU the part in which they waited for one, 0 to 1",
    "other_cpu_share": "part of the CPUs it might use that others used, or the host took away, 0 to 1",
    "cpu_pressure_share": "part of the time in which something, anywhere on the system, waited for a CPU, 0 to 1",
    "involuntary_switches": "times a thread of the run had to leave its CPU to others",
    "gpu_slowed_share": "part of the time in which heat held the GPU's clock down, 0 to 1",
    "other_gpu_share": "part of the GPU's time that others used when the run began or while it trained, 0 to 1",
    "disturbed": "what others did while the run trained, where it is so much that its times count for nothing in "
    "ratios and means; empty where nothing was seen",
}
SECTION_COLUMNS: Final[dict[str, str]] = {
    "cpu_seconds": "CPU time of the run's processes",
    "cpu_wait_seconds": "time in which its threads were ready and waited for a CPU, added up over the threads",
    "other_cpu_seconds": "CPU time of others, or of the host, on the CPUs that the run might use",
    "available_cpu_seconds": "wall clock times the number of these CPUs",
    "cpu_pressure_seconds": "time in which something, anywhere on the system, waited for a CPU",
    "involuntary_switches": "times a thread had to leave its CPU to others",
    "gpu_slowed_seconds": "time in which heat held the GPU's clock down (NVML)",
    "other_gpu_share": "part of the GPU's time that other processes used, 0 to 1 (NVML)",
}
SUMMED: Final = frozenset(SECTION_COLUMNS) - {"other_gpu_share"}


def disturbance_columns(sections: Sections, environment: Mapping[str, Any]) -> dict[str, Any]:
    """RUN_COLUMNS of a run, as far as they were measured; `disturbed` only where it was."""
    found = {**_cpu_shares(sections), **_gpu_shares(sections, environment)}
    columns = {name: value for name, value in found.items() if value is not None}
    seconds = _total(sections, "seconds") or 0.0
    reasons = [*_cpu_reason(sections, columns), *_gpu_reasons(columns, environment)] if seconds >= MIN_SECONDS else []
    return columns | ({"disturbed": "; ".join(reasons)} if reasons else {})


def _cpu_shares(sections: Sections) -> dict[str, float | None]:
    used, waited = _total(sections, "cpu_seconds"), _total(sections, "cpu_wait_seconds")
    wanted = None if used is None or waited is None else used + waited
    return {
        "cpu_seconds": used,
        "cpu_wait_share": _share(waited, wanted),
        "other_cpu_share": _share(_total(sections, "other_cpu_seconds"), _total(sections, "available_cpu_seconds")),
        "cpu_pressure_share": _share(_total(sections, "cpu_pressure_seconds"), _total(sections, "seconds")),
        "involuntary_switches": _total(sections, "involuntary_switches"),
    }


def _gpu_shares(sections: Sections, environment: Mapping[str, Any]) -> dict[str, float | None]:
    found = [part["other_gpu_share"] for part in _training(sections) if "other_gpu_share" in part]
    found += [environment["other_gpu_share"]] if "other_gpu_share" in environment else []
    return {
        "gpu_slowed_share": _share(_total(sections, "gpu_slowed_seconds"), _total(sections, "seconds")),
        "other_gpu_share": max(found, default=None),
    }


def _training(sections: Sections) -> list[Mapping[str, Any]]:
    return [sections[name] for name in TRAINING if name in sections]


def _total(sections: Sections, name: str) -> float | None:
    """Sum over the training sections; None unless all have it, as a part must not pass for the whole."""
    values = [part.get(name) for part in _training(sections)]
    return None if not values or None in values else sum(value for value in values if value is not None)


def _share(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else min(1.0, part / whole)


def _cpu_reason(sections: Sections, columns: Mapping[str, Any]) -> list[str]:
    """In words, when others had CPUs that the run waited for."""
    seconds, others = _total(sections, "seconds"), _total(sections, "other_cpu_seconds")
    available, waited = _total(sections, "available_cpu_seconds"), columns.get("cpu_wait_share", 0.0)
    if not seconds or others is None or available is None:
        return []
    if others / seconds < MIN_OTHER_CPUS or waited < MIN_WAIT:
        return []
    cpus = f"{others / seconds:.1f} of {available / seconds:.0f} CPUs"
    return [f"others used {cpus}, its threads waited {_percent(waited)} of their time for one"]


def _gpu_reasons(columns: Mapping[str, Any], environment: Mapping[str, Any]) -> list[str]:
    """In words, what others, heat and brakes did to the GPU."""
    reasons = []
    if (others := columns.get("other_gpu_share", 0.0)) >= MIN_GPU:
        reasons.append(f"others used {_percent(others)} of the GPU")
    if (slowed := columns.get("gpu_slowed_share", 0.0)) >= MIN_GPU:
        reasons.append(f"heat slowed the GPU down for {_percent(slowed)} of the time")
    states = (environment, environment.get("after_training", {}))
    throttled = [why for state in states for why in state.get("throttled", ()) if why != POWER_CAP]
    return reasons + ([f"the GPU was held down: {', '.join(dict.fromkeys(throttled))}"] if throttled else [])


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
