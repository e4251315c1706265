"""What a model's own code changes of its base is saved with the rest, and nothing else of the base is."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from strategies import compose, load, load_checkpoint, save_checkpoint


class Distilling(nn.Module):
    """A teacher that follows its student, in the ways people write it."""

    def __init__(self, how):
        super().__init__()
        self.student = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))
        self.teacher = copy.deepcopy(self.student).requires_grad_(False)
        self.stem = nn.Linear(8, 8).requires_grad_(False)
        self.head, self.how = nn.Linear(8, 8), how

    @torch.no_grad()
    def follow(self):
        for own, other in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            if self.how == "in place":
                own.mul_(0.9).add_(other + 0.01, alpha=0.1)
            elif self.how == "data in place":
                own.data.mul_(0.9).add_(other.data + 0.01, alpha=0.1)
            else:
                own.data = 0.9 * own.data + 0.1 * (other.data + 0.01)

    def forward(self, x):
        if self.training:
            self.follow()
        x = self.stem(x)
        return self.head(self.student(x)), self.teacher(x)


def loss_fn(model, batch):
    return nn.functional.mse_loss(*model(batch))


def build(how="in place"):
    torch.manual_seed(0)
    return Distilling(how)


X = torch.linspace(-1, 1, 48).reshape(6, 8)


def outputs(tuned):
    with tuned.evaluating():
        return torch.cat(tuned.model(X))


@pytest.mark.parametrize("how", ["in place", "data in place", "assigned"])
@pytest.mark.parametrize("plan", ["full", "freeze", "lora"])
def test_a_teacher_that_moves_is_saved(plan, how, tmp_path):
    tuned = compose(plan).apply(build(how), head="head", lr=1e-2)
    for _ in range(3):
        tuned.step(loss_fn, X)
    tuned.save(tmp_path)
    saved = load_file(tmp_path / "tuned.safetensors")
    assert any(name.startswith("teacher.0") and name.endswith("weight") for name in saved)
    assert not any(name.startswith("stem.") and "lora" not in name for name in saved)
    again = load(tmp_path, build(how))
    assert torch.equal(outputs(again), outputs(tuned))
    again.save(tmp_path / "again")
    assert load_file(tmp_path / "again" / "tuned.safetensors").keys() == saved.keys()


def test_a_checkpoint_holds_it_as_well(tmp_path):
    def applied():
        return compose("freeze").apply(build(), head="head", lr=1e-2)

    whole, first = applied(), applied()
    for tuned in (whole, first):
        tuned.step(loss_fn, X)
    save_checkpoint(first, tmp_path / "state.pt")
    resumed = applied()
    load_checkpoint(resumed, tmp_path / "state.pt")
    for tuned in (whole, resumed):
        tuned.step(loss_fn, X)
    assert torch.equal(outputs(resumed), outputs(whole))


def test_a_base_that_rests_is_not_saved(tmp_path):
    model = build()
    model.follow = lambda: None
    tuned = compose("freeze").apply(model, head="head")
    tuned.step(loss_fn, X)
    tuned.save(tmp_path)
    assert load_file(tmp_path / "tuned.safetensors").keys() == {"head.weight", "head.bias"}


def test_a_model_that_is_cast_since_is_no_moved_base(tmp_path):
    tuned = compose("lora").apply(build(), head="head")
    tuned.model.half()
    tuned.save(tmp_path)
    assert not any(
        "teacher.0.base_layer" in name or "stem.base_layer" in name
        for name in load_file(tmp_path / "tuned.safetensors")
    )
