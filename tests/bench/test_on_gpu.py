"""What only a CUDA GPU shows: skipped elsewhere."""

import pickle

import pytest
import torch
from torch import nn

from bench.processes.environment import child_environment
from bench.processes.start import start
from bench.worker.memory import allocator_retries, write_snapshot
from bench.worker.profiling import busy_seconds
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
