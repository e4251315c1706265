"""What `modules_to_save` names trains; where another member of the plan says what becomes of it, that is refused."""

import pytest
import torch
from torch import nn

from strategies import PlanError, compose


class Tower(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.proj = nn.Embedding(9, 8), nn.Linear(8, 8)
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8)) for _ in range(2))

    def forward(self, x):
        x = self.proj(self.words(x))
        for layer in self.layers:
            x = x + layer(x)
        return x


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.head = Tower(), nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.one(x).mean(1))


def moved(text, model):
    torch.manual_seed(0)
    tuned = compose(text).apply(model, head="head", lr=0.1)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for _ in range(2):
        tuned.step(lambda m, x: m(x).square().mean(), torch.arange(8).reshape(4, 2))
    after = dict(model.named_parameters())
    return {name for name, old in before.items() if "lora_" not in name and not torch.equal(after[name], old)}


HEAD = {"head.weight", "head.bias"}
PROJ = {"one.proj.weight", "one.proj.bias"}


def test_pretrained_frozen_and_unscoped_modules_train_as_with_peft():
    model = Model()
    model.one.proj.requires_grad_(False)
    assert moved("lora(modules_to_save=['proj'])", model) == HEAD | PROJ
    assert moved("lora(scope='one.layers',modules_to_save=['proj'])+freeze(scope='one.words')", Model()) == HEAD | PROJ


@pytest.mark.parametrize(
    ("option", "other", "name"),
    [
        ("modules_to_save=['proj']", "freeze(scope='one.proj')", "one.proj"),
        ("modules_to_save=['proj']", "bitfit(scope='one.proj')", "one.proj"),
        ("modules_to_save=['one.proj']", "houlsby(scope='one.proj')", "one.proj"),
        ("modules_to_save=['one.proj']", "lora(scope='one.proj')", "one.proj"),
        ("trainable_token_indices={'words': [1]}", "freeze(scope='one.words')", "one.words"),
    ],
)
def test_what_two_members_decide_is_refused(option, other, name):
    words = rf"lora: {option[:10]}\w+ would train '{name}', which is {other[:4]}.*: leave it out of one"
    with pytest.raises(PlanError, match=words):
        moved(f"lora(scope='one.layers',{option})+{other}", Model())


def test_an_entry_that_names_nothing_is_an_error():
    with pytest.raises(PlanError, match=r"modules_to_save has 'projection', which matches no module; there is: proj,"):
        moved("lora(modules_to_save=['projection'])", Model())
