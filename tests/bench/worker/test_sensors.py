"""Counters of a GPU: with a library that answers as NVML does, since none is needed to run these."""

import os
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
        "nvmlDeviceGetCurrentClocksThrottleReasons", "nvmlDeviceGetUtilizationRates", "nvmlDeviceGetViolationStatus",
        "nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetProcessUtilization",
    )  # fmt: skip
    return types.SimpleNamespace(
        NVMLError=NoSuchCounterError, nvmlMemory_v2=2, NVML_CLOCK_SM=1, NVML_TEMPERATURE_GPU=0,
        NVML_PERF_POLICY_THERMAL=1,
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
    assert found.counters() == {}
    assert found.other_share is None
    assert found.others_since(0.0) is None


def process(pid, share=0):
    return types.SimpleNamespace(pid=pid, smUtil=share)


def test_what_others_do_is_told_from_what_this_process_does(monkeypatch):
    asked = []
    here, samples = [process(os.getpid())], [process(os.getpid(), 90), process(1, 10), process(1, 30), process(2, 5)]

    def since(_, microseconds):
        asked.append(microseconds)
        return samples

    found = sensors(
        monkeypatch, 0,
        nvmlDeviceGetUtilizationRates=lambda _: types.SimpleNamespace(gpu=40),
        nvmlDeviceGetComputeRunningProcesses=lambda _: here, nvmlDeviceGetProcessUtilization=since,
    )  # fmt: skip
    assert found.other_share == 0.4, "before this process has touched the GPU all of it is others'"
    assert (found.others_since(1.5), asked) == (0.0, []), "alone there"
    here += [process(1), process(2)]
    assert (found.others_since(1.5), asked) == (0.25, [1_500_000])
    here[0].pid = 3
    assert found.others_since(1.5) is None, "in a container this process has another name there"


def test_heat_is_counted_in_seconds_beside_the_energy(monkeypatch):
    heat = lambda _, policy: types.SimpleNamespace(violationTime=2_500_000_000 * policy)
    found = sensors(
        monkeypatch, 0, nvmlDeviceGetViolationStatus=heat, nvmlDeviceGetTotalEnergyConsumption=lambda _: 1000
    )
    assert found.counters() == {"energy_joules": 1.0, "gpu_slowed_seconds": 2.5}


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
