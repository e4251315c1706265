"""Layers that code takes from a plain list, a dictionary or a partial are left as they are, and it is said."""

from functools import partial

import pytest
import torch
from torch import nn

from strategies import PlanError, compose
from strategies.structure.choice.held_elsewhere import held_elsewhere


class Held(nn.Module):
    """As people wrote before `nn.ModuleList`: layers in a list, and named by `add_module`."""

    def __init__(self):
        super().__init__()
        self.listed = [nn.Linear(32, 32) for _ in range(2)]
        for number, layer in enumerate(self.listed):
            self.add_module(f"layer_{number}", layer)
        self.routed, self.applied, self.free = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 32)
        self.routes = {"a": (self.routed,)}
        self.apply_it = self.applied.forward
        self.head = nn.Linear(32, 2)
        self.scopes = {"head": self.head}

    def forward(self, x):
        for layer in self.listed:
            x = torch.relu(layer(x))
        return self.head(self.free(self.apply_it(self.routes["a"][0](x))))


def test_what_is_held_is_found():
    held = held_elsewhere(Held())
    assert held == {
        "layer_0": "Held.listed", "layer_1": "Held.listed", "routed": "Held.routes", "applied": "Held.apply_it",
    }  # fmt: skip
    model = nn.Linear(4, 4)
    model.forward = partial(nn.Linear.forward, model)  # as Accelerate's hooks are
    assert not held_elsewhere(nn.Sequential(model))


@pytest.mark.parametrize("plan", ["lora(r=4)", "nf4+lora(r=4)", "houlsby(r=4)"])
def test_held_layers_stay(plan):
    model, x = Held(), torch.randn(5, 32)
    tuned = compose(plan).apply(model, head="head")
    assert set(tuned.adapted_layers()) == {"free"}
    assert type(model.layer_0) is nn.Linear
    assert "Held.listed holds it, too" in tuned.describe()
    tuned.step(lambda m, batch: m(batch).square().mean(), x)
    with pytest.raises(PlanError, match=r"'layer_0' in 'body' cannot have an adapter: Held.listed holds it, too"):
        compose("lora(target_modules=['layer_0'])").apply(Held(), head="head")
