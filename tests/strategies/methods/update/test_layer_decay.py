"""layer_decay against its formula."""

import pytest

from strategies import PlanError, Recipe
from strategies.methods.update.layer_decay import LayerDecay
from strategies.methods.weights.freeze import Freeze
from strategies.methods.weights.full import Full
from strategies.methods.weights.lora import Lora


def rates(tuned):
    """Give parameter → peak rate, decay and name, and see that each parameter is in one group."""
    names = {id(parameter): name for name, parameter in tuned.model.named_parameters()}
    groups = tuned.optimizer.param_groups
    found = {
        names[id(p)]: (group["lr"], group["weight_decay"], group["name"]) for group in groups for p in group["params"]
    }
    assert sum(len(group["params"]) for group in groups) == len(found)
    return found


@pytest.mark.parametrize(("kind", "blocks", "before", "behind"), [
    ("text", "bert.encoder.layer.", "bert.embeddings.", "bert.pooler."),
    ("gpt", "transformer.h.", "transformer.w", "transformer.ln_f."),
    ("conv", "encoder.layers.", "stem.", "pool."),
    ("cnn", "stages.", "stem.", None),
    ("two", "seeing.layers.", "seeing.embeddings.", "seeing.layernorm."),
])  # fmt: skip
def test_rates_follow_the_formula(kind, blocks, before, behind, foreign):
    plain = rates(Recipe.of([Full(lr=1e-3)]).apply(foreign.build(kind)))
    found = rates(Recipe.of([Full(lr=1e-3), LayerDecay(decay=0.5)]).apply(foreign.build(kind)))
    assert found.keys() == plain.keys()
    seen = set()
    for name, (lr, decay, part) in found.items():
        assert (decay, part) == plain[name][1:]
        factor = None
        if name.startswith(blocks):
            factor = 0.5 ** (2 - int(name[len(blocks)]))  # blocks 0 and 1 of 2
        elif name.startswith(before):
            factor = 0.5**3
        elif (behind and name.startswith(behind)) or part == "new":
            factor = 1.0
        if factor is not None:
            assert lr == pytest.approx(plain[name][0] * factor)
            seen.add((factor, part))
    expected = {(0.125, "base"), (0.25, "base"), (0.5, "base"), (1.0, "new")}
    assert seen == (expected | {(1.0, "base")} if behind else expected)


def test_adapters_get_their_blocks_factor(foreign):
    found = rates(Recipe.of([Lora(lr=1e-3), LayerDecay(decay=0.5)]).apply(foreign.build("text")))
    lora = {name: lr for name, (lr, _, _) in found.items() if "lora_" in name}
    assert len(lora) == 8
    assert all(lr == pytest.approx(1e-3 * (0.25 if ".layer.0." in name else 0.5)) for name, lr in lora.items())


def test_only_its_scope_is_changed(foreign):
    plain = rates(Recipe.of([]).apply(foreign.build("two")))
    found = rates(Recipe.of([LayerDecay(scope="text")]).apply(foreign.build("two")))
    differ = {name for name in found if found[name] != plain[name]}
    assert differ
    assert all(name.startswith("reading") for name in differ)


def test_updates_shrink_with_depth(foreign):
    """The first AdamW step moves a weight by its rate, so the factor is seen in the weights."""
    import torch

    model = foreign.build("mlp")
    before = [parameter.detach().clone() for parameter in model.parameters()]
    tuned = Recipe.of([Full(lr=1e-3), LayerDecay(decay=0.1)]).apply(model, total_steps=1)
    tuned.step(foreign.loss, foreign.batch("mlp"))
    moved = [(old - new).abs().max().item() for old, new in zip(before, model.parameters(), strict=True)]
    assert moved[0] == pytest.approx(1e-5, rel=0.05)
    assert moved[2] == pytest.approx(1e-4, rel=0.05)
    assert isinstance(model[2], torch.nn.Linear)


def test_where_it_can_do_nothing_it_refuses(foreign):
    with pytest.raises(PlanError, match="two or more blocks"):
        Recipe.of([LayerDecay(scope="0")]).apply(foreign.build("mlp"))
    with pytest.raises(PlanError, match="nothing that trains"):
        Recipe.of([LayerDecay(), Freeze()]).apply(foreign.build("text"))
    with pytest.raises(PlanError, match="decay=1"):
        LayerDecay(decay=1)
