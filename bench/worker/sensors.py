"""What NVIDIA's management library (NVML) tells of a GPU: memory in use by anyone, energy, driver, clocks.

Everything is None or missing where there is no such library, no such GPU, or no such counter; never zero.
"""

from __future__ import annotations

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
