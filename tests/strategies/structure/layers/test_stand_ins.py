"""What stands in a layer's place: its hooks see the adapter, also when they come back, and its attributes are shown."""

import peft
import pytest
import torch
from torch import nn

from strategies import PlanError, compose


class Gathers(nn.Module):
    """Takes its features from hooks, as code around a backbone of others does; asks how often they were called."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(*(nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8)) for _ in range(3)))
        self.head = nn.Linear(24, 2)
        self.features, self.given = [], []
        self.handles = [block[2].register_forward_hook(self.keep) for block in self.backbone]
        self.backbone[0][0].register_forward_pre_hook(lambda _, inputs: (2 * inputs[0],))

    def keep(self, layer, inputs, output):
        self.features.append(output)

    def forward(self, x):
        self.features.clear()
        self.backbone(x)
        return self.head(torch.cat(self.features, -1))


@pytest.mark.parametrize(
    "plan", ["lora(r=4)", "dora(r=4)", "pissa(r=4)", "houlsby(r=4)", "adaptformer(r=4)", "int8+lora"]
)
def test_hooks_see_the_adapter(plan):
    torch.manual_seed(0)
    model, x = Gathers(), torch.randn(6, 8)
    with torch.no_grad():
        before = model(x)
    tuned = compose(plan).apply(model, head="head", lr=1e-2)
    with torch.no_grad():
        assert torch.allclose(model(x), before, atol=0.1 if "int8" in plan else 1e-5)
    adapters = {name for name in tuned.trained if name.startswith("backbone")}
    started = {name: model.get_parameter(name).detach().clone() for name in adapters}
    for _ in range(3):
        tuned.step(lambda m, batch: m(batch).square().mean(), x)
    moved = {name for name in adapters if not torch.equal(model.get_parameter(name), started[name])}
    assert moved == adapters
    assert len(model.features) == 3
    if "(r=4)" not in plan or plan.startswith(("houlsby", "adaptformer")):
        return
    with torch.no_grad():
        trained = model.eval()(x)
        model.features.clear()
        tuned.merge()
        assert not model.features  # merging calls layers, but is no pass of the model
        assert torch.allclose(model(x), trained, atol=1e-5)
        model.handles[0].remove()
        model.backbone(x)
    assert len(model.features) == 3 + 2


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
def test_what_computes_a_weight_stays_with_its_layer():
    model = Gathers()
    torch.nn.utils.weight_norm(model.backbone[1][2])
    x = torch.randn(6, 8)
    before = model(x)
    compose("lora(r=4)").apply(model, head="head")
    assert torch.allclose(model(x), before, atol=1e-5)
    assert not model.backbone[1][2]._forward_pre_hooks
    assert len(model.backbone[1][2].base_layer._forward_pre_hooks) == 1


def test_a_start_that_looks_at_inputs_goes_with_hooks():
    model, x = Gathers(), torch.randn(20, 8)
    model.backbone[0][0].register_forward_pre_hook(lambda *_: None)
    tuned = compose("lora(r=4, init='eva')").apply(model, head="head")
    for _ in range(2):
        tuned.step(lambda m, batch: m(batch).square().mean(), x)


class Padded(nn.Module):
    """Pads as its convolutions say, as code from TensorFlow does, and asks a layer of its own class."""

    def __init__(self):
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(3, 3, 3, stride=2) for _ in range(2))
        self.scaled, self.head = Scaled(3, 8), nn.Linear(8, 2)

    def forward(self, x):
        for layer in self.convolutions:
            reach = layer.kernel_size[0] - layer.stride[0]
            x = layer(nn.functional.pad(x, (0, reach, 0, reach)))
        return self.head(self.scaled.scale * self.scaled(x.mean((2, 3))))


class Scaled(nn.Linear):
    """A layer with a number that others ask for."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.scale = 3.0


@pytest.mark.parametrize("word", ["lora", "houlsby", "adaptformer", "ia3", "loha"])
def test_attributes_are_those_of_the_layer(word):
    tuned = compose(f"{word}(target_modules=['re:convolutions.*', 'scaled'])").apply(Padded(), head="head")
    assert len(tuned.adapted_layers()) == 3
    tuned.step(lambda m, batch: m(batch).square().mean(), torch.randn(4, 3, 16, 16))


class Gated(nn.Module):
    """A model's own class that calls a part as PEFT does."""

    def __init__(self):
        super().__init__()
        self.base_layer, self.gate = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x):
        return self.base_layer(x) * self.gate(x).sigmoid()


def test_a_part_of_that_name_is_no_adapter():
    def build():
        model = nn.Sequential(Gated(), nn.Linear(8, 2))
        model[0].base_layer.register_forward_hook(lambda *_: None)
        return model

    plain = compose("full").apply(build())
    assert not plain.adapted_layers()
    assert plain.model[0].base_layer._forward_hooks
    tuned = compose("lora").apply(build())
    assert set(tuned.adapted_layers()) == {"0.base_layer", "0.gate"}
    tuned.step(lambda m, batch: m(batch).square().mean(), torch.randn(4, 8))
    tuned.merge()
    assert tuned.model[0].base_layer._forward_hooks


def test_layers_with_adapters_of_others_are_refused():
    wrapped = peft.get_peft_model(
        nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)), peft.LoraConfig(target_modules=["0"])
    )
    with pytest.raises(PlanError, match=r"has one of PEFT's adapters already: pass a model without"):
        compose("lora").apply(wrapped, head="base_model.model.1")
