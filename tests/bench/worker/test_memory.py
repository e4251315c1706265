"""The two memory instruments against sizes known by hand and against each other."""

import subprocess
import time
import types
from pathlib import Path

import pytest
import torch
from torch import nn

from bench.worker.memory import allocation_peak, probe
from bench.worker.sections import children_bytes, private_bytes
from strategies import compose
from strategies.prediction.storage_tracker import StorageTracker, held_tensors, tensors_in

WIDTH, BATCH = 256, 64
LAYER = 4 * (WIDTH * WIDTH + WIDTH)


def make_step(layers=4, device="cpu"):
    model = nn.Sequential(*[part for _ in range(layers) for part in (nn.Linear(WIDTH, WIDTH), nn.Tanh())])
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    batch = torch.randn(BATCH, WIDTH)

    def step():
        model(batch).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return model, optimizer, step


def probed(text):
    model = nn.Sequential(*[part for _ in range(4) for part in (nn.Linear(WIDTH, WIDTH), nn.Tanh())])
    tuned = compose(text).apply(model, total_steps=9)
    batch = {"x": torch.randn(BATCH, WIDTH)}
    return probe(tuned, lambda: tuned.step(lambda model, batch: model(batch["x"]).square().mean(), batch))


def test_the_split_by_hand():
    found = probed("full")
    assert found["weights_bytes"] == 4 * LAYER
    assert found["optimizer_bytes"] == pytest.approx(2 * 4 * LAYER, rel=0.001)
    assert 0 < found["gradients_bytes"] <= 4 * LAYER
    total = sum(found[f"{kind}_bytes"] for kind in ("weights", "gradients", "optimizer", "activations"))
    assert total == found["peak_allocated_bytes"]


def test_what_strategies_keep_between_updates_counts():
    plain, averaged = probed("full"), probed("ema")
    assert averaged["weights_bytes"] == plain["weights_bytes"]
    assert averaged["optimizer_bytes"] - plain["optimizer_bytes"] == 4 * LAYER
    assert averaged["peak_allocated_bytes"] - plain["peak_allocated_bytes"] >= 4 * LAYER
    assert probed("adalora")["weights_bytes"] < 1.2 * plain["weights_bytes"], "references to the model are no state"


def test_tracker_and_allocator_agree():
    model, optimizer, step = make_step(layers=6)
    step()
    tracker = StorageTracker()
    tracker.mark(held_tensors(model), "weights")
    tracker.mark(tensors_in(optimizer.state), "optimizer")
    static = tracker.live_bytes
    with tracker:
        step()
    assert tracker.peak_bytes == pytest.approx(static + allocation_peak(step), rel=0.01)
    assert tracker.live_bytes == static, "everything but weights and optimizer state was freed"


def test_allocation_peak_sees_what_was_freed_again():
    def step():
        torch.empty(1 << 20, dtype=torch.uint8)
        torch.empty(1 << 10, dtype=torch.uint8)

    assert allocation_peak(step) == 1 << 20


def test_tensors_hidden_in_attributes_are_found():
    scale, code = torch.ones(3), torch.ones(4)
    weight = nn.Parameter(torch.ones(2, 2), requires_grad=False)
    weight.quant_state = types.SimpleNamespace(absmax=scale, nested={"state2": [code]})
    layer = nn.Module()
    layer.weight = weight
    found = {id(tensor) for tensor in held_tensors(layer)}
    assert {id(weight), id(scale), id(code)} <= found


def test_a_storage_shared_by_views_counts_once():
    tracker = StorageTracker()
    base = torch.zeros(100)
    tracker.mark([base, base[:10], base.view(10, 10)], "weights")
    assert tracker.by_kind["weights"] == 400
    tracker.mark([base], "gradients")
    assert (tracker.by_kind["weights"], tracker.by_kind["gradients"]) == (0, 400)
    del base
    assert tracker.live_bytes == 0


def test_a_child_that_ended_and_was_not_waited_for_has_no_memory():
    child = subprocess.Popen(["true"])
    while "\nState:\tZ" not in Path(f"/proc/{child.pid}/status").read_text():
        time.sleep(0.01)
    assert private_bytes(str(child.pid)) == 0
    assert children_bytes() >= 0
    child.wait()
    assert private_bytes(str(child.pid)) == 0
    assert private_bytes() > 1 << 20
