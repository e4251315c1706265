"""What NVIDIA's management library (NVML) tells of a GPU: memory in use by anyone, energy, driver, clocks, other users.

Everything is None or missing where there is no such library, no such GPU, or no such counter; never zero.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import torch

THROTTLED: Final = {  # NVML's reasons for a lower clock than asked for, those that spoil a comparison
    0x0004: "power cap",
    0x0008: "hardware slowdown",
    0x0020: "software thermal slowdown",
    0x0040: "hardware thermal slowdown",
    0x0080: "hardware power brake",
}


class Sensors:
    """One GPU's counters; made before the process has touched the GPU, so that what lies there is other people's."""

    def __init__(self, device: torch.device) -> None:
        self._nvml: Any = None
        self._handle: Any = None
        if device.type == "cuda":
            with suppress(ImportError):
                import pynvml

                self._nvml = pynvml
                self._handle = self._query(lambda: _handle(pynvml, device))
        self.other_processes_bytes = self.used_bytes()
        self.other_share = self._busy_share()

    def _query(self, query: Callable[[], Any]) -> Any:
        """An answer, or None where this GPU or driver has none."""
        if self._nvml is None:
            return None
        try:
            return query()
        except (self._nvml.NVMLError, RuntimeError):
            return None

    def used_bytes(self) -> int | None:
        """Memory of the GPU in use by all processes, without what the driver reserves for itself."""
        nvml, handle = self._nvml, self._handle
        if handle is None:
            return None
        found = self._query(lambda: nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2))
        return None if found is None else int(found.used)

    def own_bytes(self) -> int | None:
        """Memory in use beyond what others had when this process began: allocator, CUDA context, libraries."""
        used = self.used_bytes()
        return None if used is None or self.other_processes_bytes is None else max(0, used - self.other_processes_bytes)

    def joules(self) -> float | None:
        """Energy since the driver was loaded (Volta and later), refreshed some ten times a second."""
        nvml, handle = self._nvml, self._handle
        found = None if handle is None else self._query(lambda: nvml.nvmlDeviceGetTotalEnergyConsumption(handle))
        return None if found is None else found / 1000

    def _busy_share(self) -> float | None:
        """Part of the last moments, a second at most, in which anyone's kernel ran, 0 to 1."""
        nvml, handle = self._nvml, self._handle
        found = None if handle is None else self._query(lambda: nvml.nvmlDeviceGetUtilizationRates(handle))
        return None if found is None else found.gpu / 100

    def slowed_seconds(self) -> float | None:
        """Seconds for which heat has held the clock down since the driver was loaded."""
        nvml, handle = self._nvml, self._handle
        if handle is None:
            return None
        found = self._query(lambda: nvml.nvmlDeviceGetViolationStatus(handle, nvml.NVML_PERF_POLICY_THERMAL))
        return None if found is None else found.violationTime / 1e9

    def others_since(self, epoch_seconds: float) -> float | None:
        """Part of the GPU's time that other processes have had since then, 0 to 1; None where none can be told apart.

        NVML names processes as the host does: in a container this one is not among them, so nothing can be said.
        """
        nvml, handle = self._nvml, self._handle
        if handle is None:
            return None
        here = self._query(lambda: nvml.nvmlDeviceGetComputeRunningProcesses(handle))
        if os.getpid() not in {process.pid for process in here or ()}:
            return None
        if len(here) == 1:
            return 0.0
        samples = self._query(lambda: nvml.nvmlDeviceGetProcessUtilization(handle, int(1e6 * epoch_seconds))) or ()
        shares: dict[int, list[int]] = {}
        for sample in samples:
            shares.setdefault(sample.pid, []).append(sample.smUtil)
        others = [sum(found) / len(found) for process, found in shares.items() if process != os.getpid()]
        return min(1.0, sum(others) / 100)

    def counters(self) -> dict[str, float]:
        """What has added up so far, by the column it becomes; what this GPU does not count is left out."""
        found = {"energy_joules": self.joules(), "gpu_slowed_seconds": self.slowed_seconds()}
        return {name: value for name, value in found.items() if value is not None}

    def state(self) -> dict[str, Any]:
        """Driver, clocks in MHz, power in W, temperature in °C and what holds the clock down, at this moment."""
        nvml, handle = self._nvml, self._handle
        if handle is None:
            return {}
        reasons = self._query(lambda: nvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle))
        power = self._query(lambda: nvml.nvmlDeviceGetPowerUsage(handle))
        found = {
            "driver": self._query(nvml.nvmlSystemGetDriverVersion),
            "sm_clock_mhz": self._query(lambda: nvml.nvmlDeviceGetClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "max_sm_clock_mhz": self._query(lambda: nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM)),
            "power_watts": None if power is None else power / 1000,
            "temperature_celsius": self._query(
                lambda: nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU)
            ),
            "throttled": None if reasons is None else [why for bit, why in THROTTLED.items() if reasons & bit],
        }
        return {name: value for name, value in found.items() if value is not None}


def _handle(nvml: Any, device: torch.device) -> Any:
    """NVML counts all GPUs of the machine, torch those it may see."""
    nvml.nvmlInit()
    device_index = device.index or 0
    index = torch.cuda._get_nvml_device_index(torch.device("cuda", device_index))  # noqa: SLF001
    return nvml.nvmlDeviceGetHandleByIndex(index)
