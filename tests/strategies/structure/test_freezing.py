"""What rests must rest, and what is adapted everywhere must be adapted everywhere."""

import copy

import pytest

from strategies import compose


def statistics(model):
    return [buffer.clone() for _, buffer in model.named_buffers()]


@pytest.mark.parametrize("text", ["freeze", "lora", "freeze(scope='stem')", "freeze+amp"])
def test_batch_norms_of_a_frozen_scope_keep_their_statistics(text, foreign):
    model = foreign.build("conv")
    before = statistics(model)
    assert before
    tuned = compose(text).apply(model)
    tuned.step(foreign.loss, foreign.batch("conv"))
    with tuned.evaluating():
        pass
    tuned.step(foreign.loss, foreign.batch("conv"))
    assert model.training
    assert all(old.equal(new) for old, new in zip(before, statistics(model), strict=True))
    again = copy.deepcopy(model).train()
    assert not again.stem[1].training


@pytest.mark.parametrize("text", ["full", "freeze(scope='encoder')", "lora(scope='encoder')"])
def test_batch_norms_that_train_count(text, foreign):
    model = foreign.build("conv")
    before = statistics(model)
    compose(text).apply(model).step(foreign.loss, foreign.batch("conv"))
    assert not any(old.equal(new) for old, new in zip(before, statistics(model), strict=True))


def test_batch_norms_without_weights_follow_their_block():
    import torch
    from torch import nn

    def stage():
        return nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, affine=False))

    model = nn.Sequential(nn.Sequential(stage(), stage()), nn.Linear(4, 2))
    tuned = compose("freeze(last_n=1)").apply(model)
    tuned.step(lambda part, batch: part(batch).square().mean(), torch.randn(6, 4))
    assert [int(part[1].num_batches_tracked) for part in model[0]] == [0, 1]


def test_lora_on_the_whole_model(foreign):
    model = foreign.build("two")
    tuned = compose("lora(scope='*', roles=['query', 'value'])").apply(model)
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    assert len(trains) == 2 * 2 * 2 * 2
    assert all("lora_" in name for name in trains)
    losses = [float(tuned.step(foreign.loss, foreign.batch("two"))) for _ in range(8)]
    assert losses[-1] < losses[0]
    flat = foreign.build("mlp")
    compose("lora(scope='*', target_modules=['0', '4'])").apply(flat)
    assert [name for name, p in flat.named_parameters() if p.requires_grad] == [
        f"{layer}.lora_{half}.default.weight" for layer in (0, 4) for half in "AB"
    ]


def test_skipped_steps_are_counted(foreign):
    data = foreign.batch("mlp")

    def overflowing(model, batch):
        return foreign.loss(model, batch) * float("inf")

    tuned = compose("amp(dtype='fp16')").apply(foreign.build("mlp"))
    before = [p.detach().clone() for p in tuned.model.parameters()]
    for _ in range(3):
        tuned.step(overflowing, data)
    assert tuned.skipped_steps() == tuned.state.step == 3
    assert all(old.equal(new) for old, new in zip(before, tuned.model.parameters(), strict=True))
    tuned.step(foreign.loss, data)
    assert tuned.skipped_steps() == 3
    for _ in range(200):  # down to a scale of zero, which cannot fall further
        tuned.step(overflowing, data)
    assert tuned.skipped_steps() == 203
    plain = compose("full").apply(foreign.build("mlp"))
    plain.step(foreign.loss, data)
    assert plain.skipped_steps() == 0
