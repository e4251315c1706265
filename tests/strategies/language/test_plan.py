"""Slots, scopes, capabilities, rates and heads, as tables."""

import pytest

from strategies import PlanError, Strategy, catalogue, compose
from strategies.execution.optimizer import default_lr_multiplier
from strategies.language.conflicts import CONFLICTS
from strategies.structure.roles import roles_of

LEGAL = [
    "full", "amp", "lora", "qlora", "qlora8+amp", "nf4+freeze", "checkpointing+lora", "checkpointing+freeze(last_n=1)",
    "freeze(scope='vision')+lora(scope='text')", "lora(scope='vision', r=4)+lora(scope='text')",
    "nf4(scope='vision')+int8(scope='text')+lora", "freeze(scope='vision')+checkpointing", "nf4(scope='text')+lora",
]  # fmt: skip
REFUSED = [
    ("amp+amp", "slot", "both decide 'precision'"),
    ("full+lora", "slot", "full and lora both decide 'weights'"),
    ("freeze+lora", "slot", "weights"),
    ("lora(scope='vision')+freeze", "slot", "weights"),
    ("lora(scope='vision')+freeze(scope='vision.layers')", "slot", "disjoint"),
    ("nf4+int8+lora", "slot", "storage"),
    ("nf4", "capability", "write nf4+lora"),
    ("int8+amp", "capability", "a frozen base"),
    ("nf4+full(lr=1e-5)", "capability", "a frozen base"),
    ("nf4(scope='vision')+lora(scope='text')", "capability", "a frozen base"),
    ("nf4+freeze(last_n=1)", "capability", "a frozen base"),
    ("checkpointing+freeze", "capability", "would do nothing"),
    ("freeze(scope='vision')+checkpointing(scope='vision')", "capability", "would do nothing"),
    ("lora(scope='vision', head_lr=.1)+lora(scope='text', head_lr=.2)", "slot", "one rate"),
]
ONLY_WITH_A_MODEL = [
    ("lora(scope='seeing')+lora(scope='vision')", "slot", "weights"),
    ("lora(scope='*.layers.0')+lora(scope='seeing')", "slot", "weights"),
    ("nf4+lora(scope='vision')", "capability", "a frozen base"),
    ("lora(scope='audio')", "scope", "there is:.*vision"),
]


@pytest.mark.parametrize("text", LEGAL)
def test_legal(text, foreign):
    assert compose(text).problems("cpu") == ()
    assert compose(text).problems("cpu", foreign.build("two")) == ()


@pytest.mark.parametrize(("text", "kind", "words"), REFUSED)
@pytest.mark.parametrize("with_model", [False, True])
def test_refused_with_a_reason(text, kind, words, with_model, foreign):
    (problem,) = compose(text).problems("cpu", foreign.build("two") if with_model else None)
    assert problem.kind == kind
    assert words in problem.reason


@pytest.mark.parametrize(("text", "kind", "words"), ONLY_WITH_A_MODEL)
def test_refused_when_the_model_is_known(text, kind, words, foreign):
    import re

    plan = compose(text)
    assert plan.problems("cpu") == ()
    (problem,) = plan.problems("cpu", foreign.build("two"))
    assert problem.kind == kind
    assert re.search(words, problem.reason)


def test_all_problems_at_once(foreign):
    problems = compose("nf4+full(lr=.1)+lora(scope='nowhere')+amp+amp").problems("cpu", foreign.build("two"))
    assert {problem.kind for problem in problems} == {"slot", "capability", "scope"}
    with pytest.raises(PlanError, match="nowhere"):
        compose("lora(scope='nowhere')").apply(foreign.build("two"))


def test_problems_on_a_meta_model(foreign):
    import torch

    with torch.device("meta"):
        model = foreign.TwoTowers()
    plan = compose("nf4(scope='vision')+int8(scope='text')+lora+amp+checkpointing")
    assert plan.problems("cpu", model) == ()
    plan.transform(model)
    assert all(p.is_meta for name, p in model.named_parameters() if "lora" not in name)


@pytest.mark.parametrize(
    ("text", "lr", "head_lr"),
    [
        ("full", 1e-4, 1e-3),
        ("amp", 1e-4, 1e-3),
        ("freeze", None, 1e-3),
        ("freeze(scope='vision')", 1e-4, 1e-3),
        ("freeze(last_n=1, lr=1e-5)", 1e-5, 1e-3),
        ("qlora", 1e-3, 1e-3),
        ("freeze(scope='vision')+lora(scope='text', lr=.5, head_lr=.25)", 0.5, 0.25),
    ],
)
def test_rates(text, lr, head_lr):
    rates = compose(text).rates()
    assert (rates.lr, rates.head_lr) == (lr, head_lr)


def test_groups_follow_the_scopes(foreign):
    model = foreign.build("two")
    tuned = compose("lora(scope='text', lr=.5)").apply(model)
    rates = {id(p): group["lr"] for group in tuned.optimizer.param_groups for p in group["params"]}
    decays = {id(p): group["weight_decay"] for group in tuned.optimizer.param_groups for p in group["params"]}
    assert rates[id(model.answer.weight)] == rates[id(model.mix.bias)] == 1e-3
    assert rates[id(model.seeing.layers[0].mlp.fc1.weight)] == 1e-4
    assert {rates[id(p)] for name, p in model.named_parameters() if "lora" in name} == {0.5}
    assert decays[id(model.mix.weight)] == 0.01
    assert decays[id(model.mix.bias)] == decays[id(model.seeing.layernorm.weight)] == 0


def test_each_scope_has_its_own_rate_and_the_rest_of_an_adapted_tower_is_frozen(foreign):
    model = foreign.build("two")
    tuned = compose("freeze(scope='vision', last_n=1, lr=.25)+lora(scope='text.encoder.layer.0', lr=.5)").apply(model)
    rates = {id(p): group["lr"] for group in tuned.optimizer.param_groups for p in group["params"]}
    found = {name: rates[id(p)] for name, p in model.named_parameters() if p.requires_grad}
    assert {rate for name, rate in found.items() if name.startswith("seeing.")} == {0.25}
    assert {rate for name, rate in found.items() if name.startswith("reading.encoder.layer.0.")} == {0.5}
    assert not any(name.startswith(("reading.encoder.layer.1.", "reading.embeddings.")) for name in found)
    assert {rate for name, rate in found.items() if name.startswith(("mix.", "answer."))} == {1e-3}
    overridden = compose("lora(scope='text', lr=.5)").apply(foreign.build("two"), lr=0.125)
    assert {g["lr"] for g in overridden.optimizer.param_groups if g["name"] == "base"} == {0.125}


def test_new_parts_keep_their_own_group_at_an_equal_rate(foreign):
    model = foreign.build("two")
    groups = compose("full").apply(model, lr=1e-3, head_lr=1e-3).optimizer.param_groups
    new = {id(p) for part in (model.mix, model.answer) for p in part.parameters()}
    assert {id(p) for group in groups if group["name"] == "new" for p in group["params"]} == new
    assert sorted(group["name"] for group in groups) == ["base", "base", "new", "new"]


def test_schedule():
    shares = [default_lr_multiplier(step, 100) for step in range(100)]
    assert shares[5] == max(shares) == 1
    assert shares[0] == pytest.approx(1 / 6)
    assert 0 < shares[-1] < 0.001
    assert default_lr_multiplier(500, None) == 1


@pytest.mark.parametrize(
    ("kind", "head", "expected"), [("mlp", "auto", "4"), ("text", "auto", "classifier"), ("conv", "auto", "classifier"),
                                   ("two", "auto", "answer"), ("conv", "pool", "pool")],
)  # fmt: skip
def test_head(kind, head, expected, foreign):
    tuned = compose("freeze").apply(foreign.build(kind), head=head)
    assert tuned.context.layout.scopes["head"] == (expected,)
    assert f"head: {expected}" in tuned.describe()


def test_unknown_head_names_modules(foreign):
    with pytest.raises(PlanError, match="classifier"):
        compose("full").apply(foreign.build("text"), head="clasifier")


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("vit.layers.0.attention.q_proj", "query"), ("vit.encoder.layer.0.attention.attention.query", "query"),
        ("bert.encoder.layer.1.attention.self.value", "value"), ("bert.encoder.layer.1.output.dense", "down"),
        ("bert.encoder.layer.1.attention.output.dense", "output"), ("vit.layers.0.mlp.fc1", "up"),
        ("bert.encoder.layer.1.intermediate.dense", "up"), ("h.0.mlp.c_proj", "down"), ("h.0.attn.c_proj", "output"),
        ("encoder.layers.0.linear2", "down"), ("bert.pooler.dense", None), ("classifier", None),
    ],
)  # fmt: skip
def test_roles(name, role):
    assert roles_of(name) == ([role] if role else [])
    assert roles_of("h.0.attn.c_attn") == ["query", "key", "value"]


def test_facts():
    assert compose("full").facts("cpu") == {"precision": "fp32", "grad_accumulation": 1}
    assert compose("amp(dtype='fp16')").facts("cpu")["precision"] == "fp16"
    assert compose("amp").facts("cpu")["precision"] in {"bf16", "fp16"}


def test_missing_compiler_and_package_are_reasons(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    (problem,) = compose("compile").problems("cpu")
    assert problem.kind == "unavailable"
    assert "C++ compiler" in problem.reason
    assert compose("compile(backend='eager')").problems("cpu") == ()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install peft" in compose("lora").problems("cpu")[0].reason


def test_catalogue_takes_third_parties(monkeypatch):
    import sys
    from importlib.metadata import EntryPoint

    from strategies.language.catalogue import _load_strategies

    assert all(issubclass(strategy, Strategy) for strategy in catalogue().values())
    point = EntryPoint("plain", "strategies.methods.weights.full:Full", "tunematrix.strategies")
    monkeypatch.setattr(sys.modules["strategies.language.catalogue"], "entry_points", lambda group: [point])
    _load_strategies.cache_clear()
    with pytest.raises(PlanError, match="is taken"):
        catalogue()
    monkeypatch.undo()
    _load_strategies.cache_clear()


def test_conflict_rows_name_known_strategies():
    assert len(CONFLICTS) <= 12
    for conflict in CONFLICTS:
        assert {conflict.one, *conflict.others} <= set(catalogue())
        assert conflict.link.startswith("https://")


def test_conflicts_hold_where_the_two_meet_and_on_their_device():
    def kinds(text, device="cpu"):
        return [problem.kind for problem in compose(text).problems(device)]

    assert kinds("nf4+hra") == ["conflict"]
    assert kinds("nf4(scope='vision')+lora(scope='vision')+hra(scope='text')") == []
    assert kinds("int8+dora") == ["conflict"]
    assert "conflict" not in [problem.kind for problem in compose("nf4+dora").problems("cpu")]
    assert kinds("int8+dora", "meta") == []


@pytest.mark.parametrize(("one", "other"), [(row.one, other) for row in CONFLICTS for other in row.others])
@pytest.mark.xfail(raises=Exception, strict=True)
def test_conflicts_still_fail_upstream(one, other, foreign, monkeypatch):
    """When this passes, an upstream release has fixed it: remove the row from strategies/language/conflicts.py."""
    import torch

    monkeypatch.setattr("strategies.language.checks.CONFLICTS", ())
    model, data = foreign.build("two").eval(), foreign.batch("two")
    with torch.no_grad():
        untouched = foreign.outputs(model, data)
    tuned = compose(f"{other}+{one}").apply(model, total_steps=3)
    with tuned.evaluating():
        assert torch.allclose(foreign.outputs(tuned.model, data), untouched, atol=0.3)
    update = tuned.engine.update

    def watched():
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        assert len(gradients) == sum(p.requires_grad for p in model.parameters())
        update()
        assert all(map(torch.equal, gradients, [p.grad for p in model.parameters() if p.grad is not None]))

    tuned.engine.update = watched
    for _ in range(3):
        tuned.step(foreign.loss, data)
