"""Adapters on layers that compute their weight: they start at the model, train, and merge once it is a plain one."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from strategies import PlanError, compose
from strategies.structure.layers.computed_weights import remedy_for_computed_weight


def half_pruned(layer):
    prune.l1_unstructured(layer, "weight", 0.5)


COMPUTED = {
    "weight_norm": parametrizations.weight_norm, "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal, "pruned": half_pruned, "older weight_norm": weight_norm,
    "older spectral_norm": spectral_norm,
}  # fmt: skip


class Three(nn.Module):
    def __init__(self, compute=None):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(16, 16) for _ in range(3)])
        self.head = nn.Linear(16, 3)
        if compute is not None:
            compute(self.layers[1])

    def forward(self, x):
        for layer in self.layers:
            x = x + torch.relu(layer(x))
        return self.head(x)


def build(kind=None):
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.nn.utils.*", category=FutureWarning)
        return Three(COMPUTED[kind] if kind else None).eval()


X = torch.linspace(-1, 1, 64).reshape(4, 16)


def outputs(model):
    with torch.no_grad():
        return model.eval()(X)


def trained(kind, text):
    model = build(kind)
    before = outputs(model)
    tuned = compose(text).apply(model, head="head", total_steps=4, lr=1e-2)
    assert torch.allclose(outputs(model), before, atol=1e-5)
    model.train()
    for _ in range(3):
        tuned.step(lambda m, b: m(b).square().mean(), X)
    return tuned


@pytest.mark.parametrize("kind", COMPUTED)
def test_merging_is_refused_until_the_weight_is_a_plain_one(kind):
    tuned = trained(kind, "lora")
    state = {name: tensor.clone() for name, tensor in tuned.model.state_dict().items()}
    with pytest.raises(PlanError, match=r"'layers\.1' cannot be merged: its weight is computed") as refusal:
        tuned.merge()
    assert all(torch.equal(tensor, state[name]) for name, tensor in tuned.model.state_dict().items())
    before = outputs(tuned.model)
    call = str(refusal.value).partition("first call ")[2]
    exec(call, {"model": tuned.model, "torch": torch})
    merged = tuned.merge()
    assert merged.layers == 3
    assert torch.allclose(outputs(tuned.model), before, atol=1e-4)
    plain = build()
    plain.load_state_dict(tuned.model.state_dict())


@pytest.mark.parametrize("text", ["dora", "adalora", "ia3", "vera", "oft", "boft", "lokr", "hra", "shira", "houlsby"])
def test_adapters_start_at_a_parametrised_layer_and_train(text):
    trained("weight_norm", text)


@pytest.mark.parametrize(("kind", "text"), [("weight_norm", "pissa"), ("orthogonal", "olora"), ("pruned", "hra")])
def test_adapters_that_such_a_layer_would_lose_are_refused(kind, text):
    with pytest.raises(PlanError, match=r"'layers\.1' computes its weight .* first call .*, or take lora"):
        compose(text).apply(build(kind), head="head", total_steps=4)


def test_a_plain_weight_needs_no_remedy():
    assert remedy_for_computed_weight(nn.Linear(2, 2), "0") is None
    layer = nn.Linear(2, 2)
    parametrize.register_parametrization(layer, "bias", nn.Identity())
    assert remedy_for_computed_weight(layer, "0") is None


def test_a_merge_that_is_more_than_rounding_is_refused_before_anything_changes(monkeypatch):
    from peft.tuners.lora.layer import Linear

    tuned = trained(None, "lora")
    state = {name: tensor.clone() for name, tensor in tuned.model.state_dict().items()}
    plain = Linear.get_delta_weight
    monkeypatch.setattr(Linear, "get_delta_weight", lambda self, name: plain(self, name) * 1.5)
    with pytest.raises(PlanError, match=r"cannot be merged: its output would .* rounding explains 1e-04"):
        tuned.merge()
    assert all(torch.equal(tensor, state[name]) for name, tensor in tuned.model.state_dict().items())
    monkeypatch.undo()
    assert tuned.merge().layer_drift < 1e-5


@pytest.mark.parametrize("kind", ["spectral_norm", "weight_norm"])
def test_convolutions_that_compute_their_weight_start_at_the_model(kind):
    """A spectral norm moves on whenever its weight is read in training, as putting an adapter on it does."""
    torch.manual_seed(0)
    model = nn.Sequential(COMPUTED[kind](nn.Conv2d(3, 8, 3)), nn.Flatten(), nn.Linear(8 * 4, 2))
    x = torch.randn(2, 3, 4, 4)
    with torch.no_grad():
        before = model.eval()(x)
    tuned = compose("lora").apply(model.train(), head="2")
    with tuned.evaluating():
        assert torch.allclose(model(x), before, atol=1e-5)
