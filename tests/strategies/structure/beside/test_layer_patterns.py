"""Which layers a pattern means, and a base that may differ in the rows that a plan has trained."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from strategies import PlanError, compose, load
from strategies.structure.beside.layer_patterns import layer_values

LAYERS = [f"seeing.layers.{number}.attention.{part}" for number in (0, 1, 10) for part in ("q_proj", "v_proj")]


def values(**patterns):
    return layer_values(SimpleNamespace(name="lora", **patterns), LAYERS)


def test_keys_fit_the_ends_of_names():
    assert values(rank_pattern={"0.attention.q_proj": 4, r"layers\.1.*": 2}) == {
        "rank_pattern": {LAYERS[0]: 4, **dict.fromkeys(LAYERS[2:], 2)}  # `0.` is no ending of `10.`
    }
    assert set(values(alpha_pattern={"v_proj": 4})["alpha_pattern"]) == set(LAYERS[1::2])
    assert values(rank_pattern=None) == values() == {}


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ({"proj": 4}, "has 'proj', which is no layer with an adapter; those are: q_proj, v_proj"),
        ({"layers.2.*": 4}, "is no layer with an adapter"),
        ({"q_proj": 4, r"layers\.0.*": 2}, r"gives 'seeing.layers.0.attention.q_proj' both"),
        ({"[": 4}, "no regular expression"),
    ],
)
def test_keys_that_fit_nothing_or_disagree_are_refused(pattern, words):
    with pytest.raises(PlanError, match=words):
        values(rank_pattern=pattern)


def test_towers_have_their_names_for_a_layer(foreign):
    model = compose("lora(rank_pattern={'seeing.layers.0.*': 2, 'query': 4})").apply(foreign.build("two")).model
    ranks = {name: part.r["default"] for name, part in model.named_modules() if hasattr(part, "lora_A")}
    expected = {"seeing.layers.0.": 2, "seeing.layers.1.": 8, "query": 4, "self.value": 8}
    assert ranks == {name: next(r for key, r in expected.items() if key in name) for name in ranks}
    assert len(ranks) == 8


class Words(nn.Module):
    """An embedding of which the last two rows were added, drawn anew in each process."""

    def __init__(self, added, first=0):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.body, self.head = nn.Embedding(10, 16), nn.Linear(16, 16), nn.Linear(16, 3)
        with torch.no_grad():
            self.embed.weight[8:] = added
            self.embed.weight[0] += first

    def forward(self, ids):
        return self.head(torch.tanh(self.body(self.embed(ids))).mean(1))


def test_rows_that_were_trained_may_differ_in_the_base_and_others_may_not(tmp_path):
    def loss(model, data):
        return nn.functional.cross_entropy(model(data["x"]), data["y"])

    data = {"x": torch.arange(10).reshape(5, 2), "y": torch.arange(5) % 3}
    tuned = compose("lora(trainable_token_indices=[8, 9])").apply(Words(0.5), lr=0.1)
    for _ in range(3):
        tuned.step(loss, data)
    tuned.save(tmp_path)
    again = load(tmp_path, Words(-3.0))
    with torch.no_grad():
        assert torch.equal(again.model.eval()(data["x"]), tuned.model.eval()(data["x"]))
    with pytest.raises(PlanError, match=r"tuned on another base: 1 of \d+ tensors \(embed.weight\) differ"):
        load(tmp_path, Words(0.5, first=1))
