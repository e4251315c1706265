"""What is found in a model's code about its weights is what happens: an adapter is passed over exactly there."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from strategies.structure.adapters import inject
from strategies.structure.choice.direct_reads import direct_reads


def kernel(x, first, second):
    """Compute two layers at once."""
    return linear(torch.relu(linear(x, first)), second)


class Reading(nn.Module):
    """Reads its layers' weights in every way there is."""

    def __init__(self, *, fast=False):
        super().__init__()
        self.fast = fast
        for name in ("called", "functional", "named", "asked", "doubled", "first", "second", "either", "option"):
            self.add_module(name, nn.Linear(4, 4, bias=False))
        self.looped = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(2))
        self.zipped = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(2))
        self.indexed = nn.ModuleList(nn.Linear(4, 4, bias=False) for _ in range(2))
        self.chained = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU())

    def forward(self, x, again=None):
        x = self.called(x)
        x = linear(x, self.functional.weight)
        weight = self.named.weight
        x = x @ weight.t()
        x = self.asked(x.to(self.asked.weight.dtype)) if self.asked.weight is not None else x
        for layer in self.looped:
            x = linear(x, layer.weight)
        for layer, scale in zip(self.zipped, (1.0, 2.0), strict=True):
            x = scale * layer(x)
        x = self.indexed[1](linear(x, self.indexed[0].weight))
        x = self.helper(self.chained(x))
        return linear(x, self.either.weight) if again is not None else self.either(x)

    def helper(self, x):
        with torch.no_grad():
            self.doubled.weight.mul_(1.0)
        x = self.doubled(x)
        x = kernel(x, self.first.weight, self.second.weight) if self.training else self.second(self.first(x).relu())
        return linear(x, self.option.weight) if self.fast else self.option(x)

    def never(self, x):
        return linear(x, self.called.weight)


UNCALLED = {"functional", "named", "looped.0", "looped.1", "indexed.0"}


@pytest.mark.parametrize("fast", [False, True])
def test_every_way_of_reading_a_weight(fast):
    found = {name: read.kind for name, read in direct_reads(Reading(fast=fast)).items()}
    expected = dict.fromkeys(UNCALLED, "uncalled")
    expected |= {"doubled": "changed", "first": "fused", "second": "fused", "either": "elsewhere"}
    assert found == expected | ({"option": "uncalled"} if fast else {})
    assert direct_reads(Reading())["first"].where == "Reading.helper"


@pytest.mark.parametrize("fast", [False, True])
def test_an_adapter_is_passed_over_where_a_weight_is_read(fast):
    import peft

    torch.manual_seed(0)
    model = Reading(fast=fast)
    names = [name for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    inject(model, peft.LoraConfig(r=2, init_lora_weights=False), names)
    model(torch.randn(3, 4)).sum().backward()
    lost = {name for name in names if model.get_submodule(name).lora_A["default"].weight.grad is None}
    assert lost == UNCALLED | {"first", "second"} | ({"option"} if fast else set())


def test_code_without_source_and_torchs_own_are_no_obstacle():
    space = {"nn": nn, "linear": linear}
    exec("class Made(nn.Linear):\n    def forward(self, x):\n        return linear(x, self.weight)", space)
    assert direct_reads(nn.Sequential(space["Made"](4, 4), nn.LSTM(4, 4))) == {}
    layer = nn.TransformerEncoderLayer(8, 2, 16)
    assert set(direct_reads(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False))) == {
        f"layers.{number}.self_attn.out_proj" for number in range(2)
    }
