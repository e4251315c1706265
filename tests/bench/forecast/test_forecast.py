"""Recipes predicted side by side are predicted as one after the other; a GPU's workspace is added where it is known."""

import pytest
import torch

from bench.forecast import forecast
from bench.forecast.forecast import Forecaster, predict_all
from bench.forecast.gpus import find_gpu
from bench.sweep.prepare import workspace_bytes
from bench.task import load_task

TASK = "tests.bench.faulty_task:FaultyTask(items=64)"


@pytest.mark.slow
def test_processes_predict_what_one_does(monkeypatch, capfd):
    plans = ["full", "lora", "checkpointing", "lora", "nf4"]
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    alone = predict_all(Forecaster(load_task(TASK), "cpu"), plans, 16)
    assert "predicting" not in capfd.readouterr().err, "nothing is said where it does not take long"
    monkeypatch.setattr(forecast, "MIN_SECONDS_SAVED", -1.0)
    assert predict_all(Forecaster(load_task(TASK), "cpu"), plans, 16) == alone
    assert "predicting what 4 recipes need" in capfd.readouterr().err
    assert list(alone) == ["full", "lora", "checkpointing"], "refused plans are left out"


def test_nothing_is_predicted_where_nothing_can_run():
    assert predict_all(Forecaster(load_task(TASK), "cpu"), [], 16) == {}
    assert predict_all(Forecaster(load_task(TASK), "cpu"), ["full"], 65) == {}


@pytest.mark.parametrize(("name", "known"), [("NVIDIA H100 80GB HBM3", "h100"), ("NVIDIA GeForce GTX 970", None)])
def test_the_workspace_of_a_gpu(monkeypatch, name, known):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert workspace_bytes("cuda:0") == (find_gpu(known).workspace_bytes if known else 0)
    assert workspace_bytes("cpu") == 0


def test_workspace_of_a_hopper_is_what_was_measured():
    assert find_gpu("h100").workspace_bytes == 65 * 2**20
