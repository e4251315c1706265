"""What only a CUDA GPU shows: skipped elsewhere."""

import pickle
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from bench.processes.environment import child_environment
from bench.processes.start import start
from bench.records.disturbance import MIN_GPU
from bench.worker.memory import allocator_retries, write_snapshot
from bench.worker.profiling import busy_seconds
from bench.worker.sensors import Sensors
from tests.strategies.training.test_checkpoints import check, train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@pytest.fixture
def step():
    model = nn.Linear(2048, 2048, device="cuda")
    batch = torch.randn(2048, 2048, device="cuda")
    return lambda: model(batch).sum().backward()


def test_the_gpu_is_busy_for_part_of_a_step(step):
    step()
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(10):
        step()
    end.record()
    end.synchronize()
    passed = start.elapsed_time(end) / 1000 / 10
    assert 0 < busy_seconds(step) < 1.5 * passed


def test_a_snapshot_holds_the_allocations_of_a_step(step, tmp_path):
    write_snapshot(step, tmp_path / "memory.pickle")
    with (tmp_path / "memory.pickle").open("rb") as file:
        told = pickle.load(file)
    assert any(event["action"] == "alloc" for trace in told["device_traces"] for event in trace)


def test_an_allocation_that_cannot_be_counts():
    before = allocator_retries(torch.device("cuda"))["num_ooms"]
    with pytest.raises(torch.OutOfMemoryError):
        torch.empty(2**50, device="cuda")
    assert allocator_retries(torch.device("cuda"))["num_ooms"] == before + 1


def test_a_fork_of_the_server_can_use_the_gpu(forks, tmp_path):
    with (tmp_path / "out").open("w+") as out:
        output = out.fileno()
        child = start("tests.bench.processes.program", ["gpu"], child_environment({}), output=output, errors=output)
        status, told = child.wait(120), (tmp_path / "out").read_text()
    assert (child.start_method, status) == ("fork", 0), told
    assert told.strip() == torch.cuda.get_device_name()


@pytest.fixture
def repeatable(monkeypatch, tmp_path):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(mode=True)
    train("full", (), tmp_path / "state.pt", "cuda")  # seen on CUDA: a first one draws from `random`
    yield
    torch.use_deterministic_algorithms(mode=False)


@pytest.mark.parametrize(
    "text",
    ["full", "lora(dropout=0.2)", "amp(dtype='fp16')", "amp(dtype='fp16')+lora+ema", "amp(dtype='bf16')", "nf4+lora",
     "adamw8bit", "accumulate(n=3)+amp(dtype='fp16')"],
)  # fmt: skip
def test_going_on_is_exact(text, tmp_path, repeatable):
    check(text, tmp_path / "state.pt", "cuda")


NEIGHBOUR = """
import torch
matrix = torch.randn(8192, 8192, device="cuda")
while True:
    matrix @ matrix
    torch.cuda.synchronize()
    print("at work", flush=True)
"""


def test_what_adds_up_grows_while_the_gpu_works(step):
    sensors = Sensors(torch.device("cuda"))
    before = sensors.counters()
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        step()
    torch.cuda.synchronize()
    after = sensors.counters()
    assert set(after) == set(before) <= {"energy_joules", "gpu_slowed_seconds"}
    assert after.get("energy_joules", 1.0) > before.get("energy_joules", 0.0)
    assert 0 <= after.get("gpu_slowed_seconds", 0.0) - before.get("gpu_slowed_seconds", 0.0) < 2.0


def test_another_process_on_the_gpu_is_noticed(step):
    step()  # so that this process is one of those that NVML sees
    with subprocess.Popen([sys.executable, "-c", NEIGHBOUR], stdout=subprocess.PIPE) as other:
        try:
            assert other.stdout.readline()
            began = time.time()
            time.sleep(2.0)
            sensors = Sensors(torch.device("cuda"))
            assert sensors.other_share is None or sensors.other_share > MIN_GPU
            share = sensors.others_since(began)
            assert share is None or share > MIN_GPU, "None in a container, where processes have other names"
        finally:
            other.kill()
