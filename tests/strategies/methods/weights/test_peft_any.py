"""The door to PEFT's other methods: its table against the installed PEFT, and each type at work."""

import json

import pytest

from strategies import PlanError, Recipe, compose
from strategies.methods.weights.peft_any import ALLOWED, FLOAT_ONLY, OWN_WORD, REFUSED, SEEDS, Peft

KINDS = ("mlp", "text", "two", "gpt")
# These start near the pretrained model, not at it.
NEARLY = {"c3a": 0.05, "unilora": 0.01, "vblora": 0.01}
QUICK = ("road", "vblora")  # the others run in the whole suite
types = pytest.mark.parametrize(
    "type_", [pytest.param(type_, marks=() if type_ in QUICK else pytest.mark.slow) for type_ in ALLOWED]
)


def member(type_, **options):
    return Peft(type=type_, options={**ALLOWED[type_], **options})


def test_the_table_names_each_type_once():
    import peft

    tables = [set(OWN_WORD), set(ALLOWED), set(REFUSED)]
    assert sum(map(len, tables)) == len(set.union(*tables))
    assert set.union(*tables) == {kind.value.lower() for kind in peft.PeftType}
    assert set(FLOAT_ONLY) <= set(ALLOWED)
    assert all(len(reason) > 30 for reason in REFUSED.values())


@pytest.mark.parametrize("kind", KINDS)
@types
def test_every_allowed_type_trains(type_, kind, foreign, tmp_path):
    import torch

    from strategies.saving.weights_file import load_weights

    model, data = foreign.build(kind).eval(), foreign.batch(kind)
    with torch.no_grad():
        untouched = foreign.outputs(model, data)
    plan = Recipe.of([member(type_)])
    tuned = plan.apply(model, seed=3, total_steps=8, lr=5e-3)
    with tuned.evaluating():
        assert torch.allclose(foreign.outputs(model, data), untouched, atol=NEARLY.get(type_, 1e-6))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trains = {name for name, p in model.named_parameters() if p.requires_grad}
    losses = [float(tuned.step(foreign.loss, data)) for _ in range(8)]
    assert losses[-1] < losses[0]
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed <= trains
    # GLoRA's D multiplies the bias, which is zero in fresh transformers.
    assert {name for name in trains - changed if ".glora_D." not in name} == set()
    with tuned.evaluating():
        trained = foreign.outputs(model, data)
    tuned.save(tmp_path)
    again = plan.apply(foreign.build(kind), seed=3, total_steps=8)
    load_weights(tmp_path, again.model, again.full_state())
    with again.evaluating():
        assert torch.equal(foreign.outputs(again.model, data), trained)


@types
def test_meta_gives_the_same_names_and_shapes(type_, foreign):
    import torch

    real = foreign.build("two")
    Recipe.of([member(type_)]).transform(real)
    with torch.device("meta"):
        empty = foreign.build("two")
    Recipe.of([member(type_)]).transform(empty)
    found, expected = ({n: p.shape for n, p in model.state_dict().items()} for model in (empty, real))
    assert found == expected
    assert all(parameter.is_meta for parameter in empty.parameters())


@types
def test_convolutions_alone_are_refused(type_, foreign):
    with pytest.raises(PlanError, match="no layer to adapt"):
        Recipe.of([member(type_)]).transform(foreign.build("cnn"))


@pytest.mark.parametrize("base", ["int8", "nf4"])
@types
def test_quantised_layers_train_or_are_refused(type_, base, foreign):
    import torch

    plan, data = Recipe.of([member(type_), *compose(base).members]), foreign.batch("two")
    if type_ in FLOAT_ONLY:
        with pytest.raises(PlanError, match="is quantised"):
            plan.apply(foreign.build("two"))
        return
    model = foreign.build("two").eval()
    with torch.no_grad():
        untouched = foreign.outputs(model, data)
    tuned = plan.apply(model, total_steps=6, lr=5e-3)
    with tuned.evaluating():
        assert torch.allclose(foreign.outputs(model, data), untouched, atol=0.1)
    losses = [float(tuned.step(foreign.loss, data)) for _ in range(6)]
    assert losses[-1] < losses[0]


def test_type_and_options_are_read_as_typed(foreign):
    upper = Peft(type="ROAD", options={"group_size": 4})
    assert upper == Peft(type="road", options={"group_size": 4})
    assert hash(upper) == hash(Peft(type="road", options={"group_size": 4}))
    assert "group_size" in str(Recipe.of([upper]))
    assert json.loads(json.dumps(Recipe.of([upper]).canonical()))[0]["options"] == {"group_size": 4}
    model = foreign.build("mlp")
    Recipe.of([Peft(type="hira", options={"r": 3})]).transform(model)
    assert model[0].hira_A["default"].shape == (3, 12)


@pytest.mark.parametrize(
    ("type_", "words"),
    [
        ("LoRA", r"use lora\(…\)"),
        ("ln_tuning", r"use layernorm\(…\)"),
        ("prefix_tuning", "virtual tokens"),
        ("xlora", "trained before"),
        ("frod", "weights' values"),
        ("raod", r"unknown type 'raod'; there is: road, "),
    ],
)
def test_other_types_are_refused_at_once(type_, words):
    with pytest.raises(PlanError, match=words):
        Peft(type=type_)


@pytest.mark.parametrize(
    ("type_", "options", "words"),
    [
        ("hira", {"rank": 3}, r"hira has no option 'rank'; it has: .*\br\b"),
        ("hira", {"target_modules": ["a"]}, "no option 'target_modules'"),
        ("psoft", {}, r"cannot put psoft into these layers.*32"),
        ("psoft", {"ab_svd_init": "none"}, r"psoft refuses options"),
    ],
)
def test_wrong_options_are_refused_with_the_names(type_, options, words, foreign):
    plan = Recipe.of([Peft(type=type_, options=options)])
    with pytest.raises(PlanError, match=words):
        plan.transform(foreign.build("mlp"))


def test_a_type_that_the_installed_peft_lacks_is_refused(foreign, monkeypatch):
    import peft

    less = {kind: tuner for kind, tuner in peft.PEFT_TYPE_TO_TUNER_MAPPING.items() if kind.value != "ROAD"}
    monkeypatch.setattr(peft, "PEFT_TYPE_TO_TUNER_MAPPING", less)
    with pytest.raises(PlanError, match=r"installed PEFT \d.* has no road"):
        Recipe.of([member("road")]).transform(foreign.build("mlp"))


def test_seeds_come_from_the_plan_unless_given(foreign):
    assert "projection_prng_key" in SEEDS

    def config(seed, **options):
        return member("pvera", **options)._config(seed)

    assert config(5).projection_prng_key == 5
    assert config(5, projection_prng_key=9).projection_prng_key == 9
    assert config(5).r == 256


def test_refusals_are_true(foreign):
    """Spot checks: what the refused types do when tried all the same."""
    import peft
    import torch

    from strategies.structure.adapters import inject

    model = torch.nn.ModuleDict({"root": foreign.build("mlp")})
    with pytest.raises(TypeError):
        inject(model, peft.PromptTuningConfig(num_virtual_tokens=2), ["root.0"])
    with torch.device("meta"):
        empty = torch.nn.ModuleDict({"root": foreign.build("mlp")})
    for config in (peft.AdamssConfig(r=4), peft.FrodConfig(progressbar=False)):
        with pytest.raises(NotImplementedError, match="meta"):
            inject(empty, config, ["root.0"])
    inject(model, peft.PolyConfig(), ["root.0"])
    with pytest.raises(ValueError, match="task_ids"):
        model["root"](torch.ones(1, 12))
