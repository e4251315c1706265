"""Counters of a GPU: with a library that answers as NVML does, since none is needed to run these."""

import sys
import types

import pytest
import torch

from bench.worker.sensors import Sensors


class NoSuchCounterError(Exception):
    pass


def library(used, **answers):
    """NVML with one GPU; what `answers` lacks this GPU lacks."""

    def missing(*_):
        raise NoSuchCounterError

    names = (
        "nvmlDeviceGetTotalEnergyConsumption", "nvmlSystemGetDriverVersion", "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetMaxClockInfo", "nvmlDeviceGetPowerUsage", "nvmlDeviceGetTemperature",
        "nvmlDeviceGetCurrentClocksThrottleReasons",
    )  # fmt: skip
    return types.SimpleNamespace(
        NVMLError=NoSuchCounterError, nvmlMemory_v2=2, NVML_CLOCK_SM=1, NVML_TEMPERATURE_GPU=0,
        nvmlInit=lambda: None, nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMemoryInfo=lambda *_, **__: types.SimpleNamespace(used=used.pop(0)),
        **{name: answers.get(name, missing) for name in names},
    )  # fmt: skip


def sensors(monkeypatch, *used, **answers):
    monkeypatch.setitem(sys.modules, "pynvml", library(list(used), **answers))
    monkeypatch.setattr(torch.cuda, "_get_nvml_device_index", lambda _: 0)
    return Sensors(torch.device("cuda"))


def test_what_others_hold_is_told_and_taken_off(monkeypatch):
    found = sensors(monkeypatch, 300, 1000, 200)
    assert found.other_processes_bytes == 300
    assert found.own_bytes() == 700
    assert found.own_bytes() == 0, "others gave back more than is used here"


def test_counters_that_a_gpu_lacks_are_missing_not_zero(monkeypatch):
    found = sensors(monkeypatch, 0)
    assert found.joules() is None
    assert found.state() == {}


def test_counters_in_units_people_know(monkeypatch):
    found = sensors(
        monkeypatch, 0,
        nvmlDeviceGetTotalEnergyConsumption=lambda _: 2500, nvmlDeviceGetPowerUsage=lambda _: 684_963,
        nvmlSystemGetDriverVersion=lambda: "580.1", nvmlDeviceGetCurrentClocksThrottleReasons=lambda _: 0x44,
    )  # fmt: skip
    assert found.joules() == 2.5
    why = ["power cap", "hardware thermal slowdown"]
    assert found.state() == {"driver": "580.1", "power_watts": 684.963, "throttled": why}


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_without_the_library_nothing_is_told(monkeypatch, device):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = Sensors(torch.device(device))
    assert (found.other_processes_bytes, found.own_bytes(), found.joules(), found.state()) == (None, None, None, {})
