"""Training that stops and goes on in a model built anew ends where one without a stop ends, to the bit."""

import random

import numpy as np
import pytest
import torch

from bench.worker.pause import Batches
from strategies import PlanError, compose, load_checkpoint, not_resumable, restore_random, save_checkpoint
from strategies.compatibility.tiny_model import tiny_collate, tiny_items, tiny_loss, tiny_model

TOTAL = 10
PAUSES = {3, 4, 8}  # three batches make a pass: between two, the middle of the second and of the third
PLANS = [
    "full", "lora(dropout=0.2)", "amp(dtype='bf16')+lora", "adamw8bit", "galore(r=4)", "apollo(r=4)", "muon",
    "adafactor", "lion", "schedule_free", "ema", "ema+schedule(shape='wsd')", "adalora", "lisa(n=1,period=3)",
    "progressive_freezing(start=0.2)", "nf4+lora", "pure_bf16", "optimizer_in_backward", "optimizer_in_backward+muon",
    "accumulate(n=3)", "auto_batch(start=5)", "group_by_image", "bucketing", "selective_backprop(start=0.0)",
    "patch_dropout", "pissa", "vera", "oft", "layer_decay", "checkpointing+lora",
]  # fmt: skip
QUICK = [*PLANS[:2], "ema", "lisa(n=1,period=3)", "group_by_image"]


def begin(text, device="cpu"):
    plan = compose(text)
    tuned = plan.apply(tiny_model(), device=device, seed=3, total_steps=TOTAL)
    order = torch.Generator().manual_seed(3)
    return tuned, Batches(tuned.loader(tiny_items(), batch_size=12, collate=tiny_collate, generator=order), order)


def loss_of(tuned):
    if any(member.needs_losses for member in tuned.plan.members):
        return tiny_loss
    return lambda model, batch: tiny_loss(model, batch).mean()


def train(text, pauses, file, device="cpu"):
    (tuned, batches), losses = begin(text, device), []
    while tuned.state.step < TOTAL:
        losses.append(float(tuned.step(loss_of(tuned), next(batches))))
        random.random(), np.random.random()
        if tuned.state.step in pauses:
            save_checkpoint(tuned, file, batches=batches.position())
            torch.manual_seed(999), np.random.seed(9), random.seed(9)
            tuned, batches = begin(text, device)
            batches.seek(load_checkpoint(tuned, file)["batches"])
    with tuned.evaluating():
        outputs = tuned.model({key: value.to(device) for key, value in tiny_collate(tiny_items()).items()})
    with tuned.averaged():
        weights = {name: tensor.clone() for name, tensor in tuned.full_state().items()}
    return losses, weights, outputs, torch.rand(3), (random.random(), np.random.random())


def check(text, file, device="cpu"):
    """Hold training with pauses to the training without one."""
    random.seed(1), np.random.seed(1)
    losses, weights, outputs, drawn, number = train(text, (), file, device)
    assert len(set(losses)) > 1
    random.seed(1), np.random.seed(1)
    again = train(text, PAUSES, file, device)
    assert again[0] == losses
    assert set(again[1]) == set(weights)
    assert [name for name in weights if not torch.equal(again[1][name], weights[name])] == []
    assert torch.equal(again[2], outputs)
    assert torch.equal(again[3], drawn)
    assert again[4] == number


@pytest.mark.parametrize("text", [pytest.param(p, marks=[] if p in QUICK else [pytest.mark.slow]) for p in PLANS])
def test_going_on_is_exact(text, tmp_path):
    check(text, tmp_path / "state.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["state.pt"]


def test_random_streams_may_be_left_and_put_back_later(tmp_path):
    """With dropout the losses from the first update on are those of the training that went on."""

    def losses(tuned, count=2):
        return [float(tuned.step(loss_of(tuned), batch)) for _ in range(count)]

    tuned, batches = begin("lora(dropout=0.2)")
    batch = next(batches)
    losses(tuned, 1)
    save_checkpoint(tuned, tmp_path / "state.pt")
    expected = losses(tuned)
    again = begin("lora(dropout=0.2)")[0]
    load_checkpoint(again, tmp_path / "state.pt")
    assert losses(again) == expected
    left = begin("lora(dropout=0.2)")[0]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    saved = load_checkpoint(left, tmp_path / "state.pt", random=False)
    assert torch.equal(torch.get_rng_state(), before)
    restore_random(saved["random"], left.device)
    assert losses(left) == expected


def test_what_cannot_go_on_exactly_says_so(tmp_path):
    tuned, _ = begin("cache_features+freeze")
    assert not_resumable(tuned.plan) == ["cache_features"]
    with pytest.raises(PlanError, match=r"cache_features.*start the training again"):
        save_checkpoint(tuned, tmp_path / "state.pt")
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_something_else_is_refused(tmp_path):
    tuned, batches = begin("lora")
    tuned.step(loss_of(tuned), next(batches))
    file = tmp_path / "state.pt"
    save_checkpoint(tuned, file)
    with pytest.raises(PlanError, match="is a checkpoint of lora"):
        load_checkpoint(begin("full")[0], file)
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(PlanError, match="cannot be read"):
        load_checkpoint(begin("lora")[0], file)
