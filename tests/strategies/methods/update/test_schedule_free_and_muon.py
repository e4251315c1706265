"""schedule_free against its own package, and muon's updates by their singular values."""

import pytest

from strategies import PlanError, Recipe
from strategies.methods.update.muon import Muon
from strategies.methods.update.schedule_free import ScheduleFree


def test_schedule_free_is_the_package_used_by_hand(digits):
    import schedulefree
    import torch

    steps = 50
    tuned, losses = digits.trained([ScheduleFree()], steps=steps)
    model, batch = digits.build(), digits.batch
    groups = [
        {"params": [p for p in model.parameters() if (p.ndim > 1) is wide], "weight_decay": decay}
        for wide, decay in ((True, 0.01), (False, 0.0))
    ]
    optimizer = schedulefree.AdamWScheduleFree(groups, lr=2e-3, warmup_steps=3)  # 6 % of 50
    optimizer.train()
    for told in losses:
        value = digits.loss(model, batch)
        assert value.item() == pytest.approx(told, abs=1e-5)
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    optimizer.eval()
    with tuned.evaluating():
        pairs = zip(tuned.model.parameters(), model.parameters(), strict=True)
        assert all(torch.allclose(one, other, atol=1e-5) for one, other in pairs)


def test_schedule_free_evaluates_and_saves_the_average_and_trains_on(digits, tmp_path):
    import torch
    from safetensors.torch import load_file

    tuned, _ = digits.trained([ScheduleFree()])
    undisturbed, _ = digits.trained([ScheduleFree()])
    before = {name: p.detach().clone() for name, p in tuned.model.named_parameters()}
    with tuned.evaluating():
        average = {name: p.detach().clone() for name, p in tuned.model.named_parameters()}
        tuned.save(tmp_path)  # inside: nothing is averaged twice
    for name, parameter in tuned.model.named_parameters():
        fast = tuned.optimizer.state[parameter]["z"]  # y = 0.1 z + 0.9 x
        assert torch.allclose(before[name], 0.1 * fast + 0.9 * average[name], atol=1e-6)
        assert torch.equal(parameter, before[name])
        assert not torch.equal(parameter, average[name])
    saved = load_file(tmp_path / "tuned.safetensors")
    assert all(torch.equal(saved[name], average[name]) for name in average)
    losses = [[float(part.step(digits.loss, digits.batch)) for _ in range(3)] for part in (tuned, undisturbed)]
    assert losses[0] == losses[1]


def test_schedule_free_shares_of_the_rate():
    part = ScheduleFree()
    assert [part.lr_multiplier(step, 50) for step in (0, 1, 2, 3, 49)] == pytest.approx([1 / 3, 2 / 3, 1, 1, 1])
    assert [part.lr_multiplier(step, None) for step in (0, 9, 500)] == pytest.approx([0.1, 1, 1])
    with pytest.raises(PlanError, match="beta1"):
        ScheduleFree(beta1=0.0)


def test_muon_makes_updates_orthogonal_and_leaves_the_rest_to_adamw(digits):
    import torch

    tuned, plain = (Recipe.of(members).apply(digits.build(), lr=1e-2, head_lr=1e-2) for members in ([Muon()], []))
    start = digits.build()
    for part in (tuned, plain):
        part.step(digits.loss, digits.batch)
    rate = 1e-2 / 10  # warm-up over ten updates
    for layer in (0, 2):
        old, new = start[layer].weight, tuned.model[layer].weight
        update = (old * (1 - rate * 0.01) - new) / (rate * 0.2 * max(old.shape) ** 0.5)
        values = torch.linalg.svdvals(update)
        assert (values[:32] > 0.6).all()
        assert (values < 1.3).all()
        assert 0.1 < (new - old).square().mean().sqrt().item() / rate < 0.25
    others = [name for name, _ in start.named_parameters() if name not in {"0.weight", "2.weight"}]
    for name in others:
        assert torch.equal(tuned.model.get_parameter(name), plain.model.get_parameter(name))
