"""LoRA's variants against PEFT, and against the formulas of their papers."""

import math
from types import SimpleNamespace

import pytest

from strategies import PlanError, Recipe
from strategies.methods.memory.checkpointing import Checkpointing
from strategies.methods.numerics.int8 import Int8
from strategies.methods.numerics.nf4 import Nf4
from strategies.methods.speed.compiling import Compile
from strategies.methods.weights.adalora import AdaLora
from strategies.methods.weights.dora import Dora
from strategies.methods.weights.full import Full
from strategies.methods.weights.lora import Lora, float_weights
from strategies.methods.weights.lorafa import LoraFa
from strategies.methods.weights.loraplus import LoraPlus
from strategies.methods.weights.olora import Olora
from strategies.methods.weights.pissa import Pissa
from strategies.methods.weights.rslora import Rslora
from strategies.saving.weights_file import load_weights

FAMILY = [Rslora, Dora, Pissa, Olora, LoraPlus, LoraFa, AdaLora]
SPLITS = [Pissa(), Pissa(niter=8), Olora()]
AS_IN_PEFT = [
    (Rslora(r=4, alpha=8), {"use_rslora": True}),
    (Dora(r=4, alpha=8), {"use_dora": True}),
    (Pissa(r=4, alpha=8), {"init_lora_weights": "pissa"}),
    (Pissa(r=4, alpha=8, niter=3), {"init_lora_weights": "pissa_niter_3"}),
    (Olora(r=4, alpha=8), {"init_lora_weights": "olora"}),
    (LoraFa(r=4, alpha=8), {}),
    (Rslora(r=4, alpha=8, dropout=0.3), {"use_rslora": True, "lora_dropout": 0.3}),
]


def applied(foreign, *members, kind="two", **options):
    return Recipe.of(members).apply(foreign.build(kind), **options)


def steps(foreign, tuned, kind="two", number=4):
    return [float(tuned.step(foreign.loss, foreign.batch(kind))) for _ in range(number)]


def scores(foreign, tuned, kind="two"):
    with tuned.evaluating():
        return foreign.outputs(tuned.model, foreign.batch(kind))


def adapted(model):
    from peft.tuners.tuners_utils import BaseTunerLayer

    return {name: module for name, module in model.named_modules() if isinstance(module, BaseTunerLayer)}


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT's own
@pytest.mark.parametrize(("member", "fields"), AS_IN_PEFT, ids=lambda part: str(part)[:40])
def test_equals_peft(member, fields, foreign):
    import peft
    import torch
    from peft.optimizers import create_lorafa_optimizer

    ours = applied(foreign, member, kind="text", seed=7, total_steps=4)
    model = foreign.build("text")
    modules = {"target_modules": ["query", "value"], "modules_to_save": ["classifier"]}
    torch.manual_seed(7)
    theirs = peft.get_peft_model(model, peft.LoraConfig(r=4, lora_alpha=8, **modules, **fields))
    if isinstance(member, LoraFa):
        create_lorafa_optimizer(theirs, r=4, lora_alpha=8, lr=1e-3)  # freezes A
    plan = Recipe.of([Full(lr=member.lr)])
    reference = plan.apply(theirs, seed=0, head="base_model.model.classifier", total_steps=4)
    for tuned in (ours, reference):
        torch.manual_seed(1)
        tuned.losses = steps(foreign, tuned, "text")
    assert ours.losses == reference.losses
    others = {name.removeprefix("base_model.model."): p for name, p in theirs.named_parameters()}
    for name, parameter in ours.model.named_parameters():
        if "classifier" not in name:
            assert torch.equal(parameter, others[name]), name
            assert parameter.requires_grad == others[name].requires_grad


@pytest.mark.parametrize("kind", ["mlp", "text", "conv", "two", "gpt", "cnn"])
@pytest.mark.parametrize("method", FAMILY)
def test_starts_at_the_pretrained_model_and_learns(method, kind, foreign):
    import torch

    if kind == "cnn" and method in (Pissa, Olora):
        with pytest.raises(PlanError, match="linear layers"):
            applied(foreign, method(), kind=kind)
        return
    plain = scores(foreign, applied(foreign, kind=kind), kind)
    tuned = applied(foreign, method(), kind=kind, total_steps=6)
    torch.testing.assert_close(scores(foreign, tuned, kind), plain, rtol=0, atol=1e-5)
    losses = steps(foreign, tuned, kind, 6)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", FAMILY)
def test_on_meta_names_and_shapes_are_the_same(method, foreign):
    def shapes(model):
        Recipe.of([method()]).transform(model, total_steps=4)
        return {name: (p.shape, p.requires_grad) for name, p in model.named_parameters()}

    on_meta = foreign.build("two").to("meta")
    assert shapes(on_meta) == shapes(foreign.build("two"))
    assert all(p.is_meta for p in on_meta.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("base", [None, Nf4()])
@pytest.mark.parametrize("member", [*(method() for method in FAMILY), Pissa(niter=2)], ids=str)
def test_a_saved_model_comes_back(member, base, foreign, tmp_path):
    import torch

    members = [member] if base is None else [member, base]
    tuned = applied(foreign, *members, seed=3, total_steps=4)
    steps(foreign, tuned)
    tuned.save(tmp_path)
    again = applied(foreign, *members, seed=3, total_steps=4)
    load_weights(tmp_path, again.model, again.full_state())
    assert torch.equal(scores(foreign, tuned), scores(foreign, again))


@pytest.mark.parametrize("method", FAMILY)
def test_merging_each_layer_keeps_the_outputs(method, foreign):
    import torch

    tuned = applied(foreign, method(lr=1e-2), total_steps=4)
    steps(foreign, tuned)
    before = scores(foreign, tuned)
    for layer in adapted(tuned.model).values():
        layer.merge(safe_merge=True)
        assert layer.merged
    torch.testing.assert_close(scores(foreign, tuned), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", FAMILY)
def test_each_tower_may_have_its_own(method, foreign):
    tuned = applied(foreign, method(scope="vision"), Lora(scope="text"), total_steps=4)
    assert {name.partition(".")[0] for name in adapted(tuned.model)} == {"seeing", "reading"}
    losses = steps(foreign, tuned)
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("method", FAMILY)
def test_checkpointed_equals_plain_to_the_bit(method, foreign):
    plain = steps(foreign, applied(foreign, method(), total_steps=4))
    assert steps(foreign, applied(foreign, method(), Checkpointing(), total_steps=4)) == plain


@pytest.mark.slow
@pytest.mark.parametrize("method", FAMILY)
def test_compiled_equals_plain(method, foreign):
    plain = steps(foreign, applied(foreign, method(), kind="text", total_steps=4), "text", 2)
    compiled = steps(
        foreign, applied(foreign, method(), Compile(backend="eager"), kind="text", total_steps=4), "text", 2
    )
    assert compiled == pytest.approx(plain, rel=1e-6)


def test_rslora_scales_by_the_root_of_the_rank(foreign):
    import torch

    for r in (4, 64):
        tuned = applied(foreign, Rslora(r=r, alpha=16))
        for layer in adapted(tuned.model).values():
            a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
            torch.nn.init.normal_(b)
            x = torch.randn(5, 32)
            added = 16 / math.sqrt(r) * x @ a.T @ b.T
            torch.testing.assert_close(layer(x), layer.base_layer(x) + added, rtol=1e-4, atol=1e-4)


def test_dora_has_the_rows_lengths_and_follows_its_formula(foreign):
    import torch

    for base in ((), (Nf4(),)):
        tuned = applied(foreign, Dora(r=4), *base)
        plain = foreign.build("two")
        for name, layer in adapted(tuned.model).items():
            magnitude = layer.lora_magnitude_vector["default"].weight
            assert torch.allclose(magnitude, plain.get_submodule(name).weight.norm(dim=1))
            assert magnitude.requires_grad
    tuned = applied(foreign, Dora(r=4, alpha=8))
    for layer in adapted(tuned.model).values():
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        torch.nn.init.normal_(b)
        moved = layer.base_layer.weight + 2 * b @ a
        weight = layer.lora_magnitude_vector["default"].weight[:, None] * moved / moved.norm(dim=1, keepdim=True)
        x = torch.randn(5, 32)
        torch.testing.assert_close(layer(x), x @ weight.T + layer.base_layer.bias, rtol=1e-4, atol=1e-4)


def test_dora_on_an_int8_base_is_refused_on_cpu(foreign):
    with pytest.raises(PlanError, match="on CPU PEFT loses"):
        applied(foreign, Dora(), Int8())


@pytest.mark.parametrize("base", [None, Nf4(), Int8()], ids=["float", "nf4", "int8"])
@pytest.mark.parametrize("member", SPLITS, ids=str)
def test_splits_add_up_to_the_weight_before_it_is_quantised(member, base, foreign):
    import torch

    model, plain = foreign.build("two"), foreign.build("two")
    Recipe.of([member, base] if base else [member]).transform(model)
    for name, layer in adapted(model).items():
        part = layer.get_delta_weight("default") if base is None else _product(layer)
        rest, weight = layer.base_layer.weight.data, plain.get_submodule(name).weight
        assert type(layer.base_layer.weight) is not torch.nn.Parameter or base is None
        torch.testing.assert_close(rest + part, weight, rtol=0, atol=1e-6)
        if isinstance(member, Pissa):
            left, values, right = torch.linalg.svd(weight)
            best = left[:, :8] @ torch.diag(values[:8]) @ right[:8]
            if member.niter == 0:
                torch.testing.assert_close(part, best, rtol=0, atol=1e-6)
            assert rest.norm() <= 1.02 * (weight - best).norm() < weight.norm()
        else:
            b = layer.lora_B["default"].weight
            torch.testing.assert_close(b.T @ b, torch.eye(8), rtol=0, atol=1e-5)


def _product(layer):
    return layer.scaling["default"] * layer.lora_B["default"].weight @ layer.lora_A["default"].weight


def test_pissa_rounds_only_the_rest(foreign):
    """Large values in a few directions spoil the rounding of the whole weight, but not of what pissa leaves."""
    import torch

    def error(method):
        model = foreign.build("mlp")
        with torch.no_grad():
            model[2].weight += 3 * torch.outer(torch.randn(32), torch.randn(32))
        weight = model[2].weight.detach().clone()
        tuned = Recipe.of([method(), Nf4()]).apply(model)
        layer = adapted(tuned.model)["2"]
        with torch.no_grad():
            return float((layer(torch.eye(32)) - layer.base_layer.bias - weight.T).norm())

    assert error(Pissa) < 0.5 * error(Lora)


@pytest.mark.parametrize("method", [Pissa, Olora])
def test_splits_refuse_what_they_cannot_split(method, foreign):
    with pytest.raises(PlanError, match="32 directions, r=33"):
        applied(foreign, method(r=33))
    assert steps(foreign, applied(foreign, method(r=32)))
    model = foreign.build("mlp")
    tied = type(model)(model[0], model[1], model[2], type(model[2])(32, 32), model[4])
    tied[3].weight = tied[2].weight
    with pytest.raises(PlanError, match="shares its weight"):
        Recipe.of([method()]).apply(tied)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT's own
def test_loraplus_groups_as_peft_does(foreign):
    import peft
    import torch
    from peft.optimizers import create_loraplus_optimizer

    tuned = applied(foreign, LoraPlus(lr=1e-4, ratio=4), kind="text")
    theirs = peft.get_peft_model(foreign.build("text"), peft.LoraConfig(r=8, target_modules=["query", "value"]))
    optimizer = create_loraplus_optimizer(theirs, torch.optim.AdamW, lr=1e-4, loraplus_lr_ratio=4)

    def rates(model, optimizer):
        rate = {id(p): float(group["lr"]) for group in optimizer.param_groups for p in group["params"]}
        named = ((name.removeprefix("base_model.model."), p) for name, p in model.named_parameters())
        return {name: rate[id(p)] for name, p in named if "lora_" in name}

    assert rates(tuned.model, tuned.optimizer) == rates(theirs, optimizer)
    assert {rate for name, rate in rates(tuned.model, tuned.optimizer).items() if "lora_B" in name} == {4e-4}
    new = [group for group in tuned.optimizer.param_groups if group["name"] == "new"]
    assert {group["lr"] for group in new} == {1e-3}
    assert {group["weight_decay"] for group in tuned.optimizer.param_groups if group["name"] == "base"} == {0.01}


def test_loraplus_speeds_up_only_its_own_scope(foreign):
    tuned = applied(foreign, LoraPlus(scope="vision", lr=1e-4, ratio=4), LoraPlus(scope="text", lr=1e-3, ratio=8))
    rate = {id(p): group["lr"] for group in tuned.optimizer.param_groups for p in group["params"]}
    found = {
        (name.partition(".")[0], "lora_B" in name, rate[id(p)])
        for name, p in tuned.model.named_parameters()
        if "lora_" in name
    }
    assert found == {
        ("seeing", False, 1e-4), ("seeing", True, 4e-4), ("reading", False, 1e-3), ("reading", True, 8e-3)
    }  # fmt: skip


def test_loraplus_with_ratio_one_is_lora(foreign):
    one = steps(foreign, applied(foreign, LoraPlus(ratio=1.0, lr=1e-3)))
    assert one == pytest.approx(steps(foreign, applied(foreign, Lora())), rel=1e-6)


def test_lorafa_trains_b_alone_and_keeps_less(foreign):
    import torch

    def kept(member):
        tuned = applied(foreign, member)
        sizes = []

        def pack(tensor):
            if not isinstance(tensor, torch.nn.Parameter):
                sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            foreign.loss(tuned.model, foreign.batch("two"))
        return sum(sizes)

    assert kept(LoraFa(r=8)) < 0.9 * kept(Lora(r=8))
    tuned = applied(foreign, LoraFa())
    before = {name: p.detach().clone() for name, p in tuned.model.named_parameters() if "lora_" in name}
    steps(foreign, tuned)
    for name, old in before.items():
        assert torch.equal(old, tuned.model.get_parameter(name)) == ("lora_A" in name)
    assert set(before) <= set(tuned.full_state())


def test_float_weights_gives_the_classes_back_after_an_error(foreign):
    import torch

    model = foreign.build("two")
    Recipe.of([Nf4(), Lora()]).transform(model)
    kinds = [type(p) for p in model.parameters()]

    def fail():
        with float_weights(model):
            assert {type(p) for p in model.parameters()} == {torch.nn.Parameter}
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [type(p) for p in model.parameters()] == kinds


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")  # PEFT's own
def test_adalora_equals_peft(foreign):
    import peft
    import torch

    member = AdaLora(init_r=6, target_r=3, alpha=16, tinit=0.2, tfinal=0.2, deltaT=2, lr=1e-3)
    ours = applied(foreign, member, kind="text", seed=7, total_steps=10)
    modules = {"target_modules": r".*layer\.\d+\..*(query|key|value|dense)", "modules_to_save": ["classifier"]}
    schedule = {"init_r": 6, "target_r": 3, "tinit": 2, "tfinal": 2, "deltaT": 2, "total_step": 10}
    model = foreign.build("text")
    torch.manual_seed(7)
    theirs = peft.get_peft_model(model, peft.AdaLoraConfig(lora_alpha=16, **modules, **schedule))
    reference = Recipe.of([Full(lr=1e-3)]).apply(theirs, head="base_model.model.classifier", total_steps=10)
    reference.optimizer.register_step_post_hook(
        lambda *_: theirs.base_model.update_and_allocate(reference.state.step + 1)
    )

    def with_loss(model, data):
        return model.base_model(*data["inputs"], labels=data["labels"]).loss  # only AdaLoraModel adds the term

    data = foreign.batch("text")
    for _ in range(10):
        ours.step(foreign.loss, data)
        reference.step(with_loss, data)
    others = {name.removeprefix("base_model.model."): p for name, p in theirs.named_parameters()}
    for name, parameter in adapters(ours.model).items():
        torch.testing.assert_close(parameter, others[name], rtol=1e-3, atol=1e-5)
        if "lora_E" in name:
            assert torch.equal(parameter == 0, others[name] == 0)
    assert remaining(ours.model) == 3 * 12


def adapters(model):
    return {name: p for name, p in model.named_parameters() if ".lora_" in name}


def remaining(model):
    return sum(int((p != 0).sum()) for name, p in adapters(model).items() if "lora_E" in name)


def test_adalora_follows_its_budget(foreign):
    total, first, last = 20, 4, 5
    member = AdaLora(init_r=6, target_r=2, tinit=0.2, tfinal=0.25)
    tuned = applied(foreign, member, kind="text", total_steps=total)
    start, goal = 6 * 12, 2 * 12
    for step in range(1, total + 3):
        steps(foreign, tuned, "text", 1)
        share = min(1.0, max(0.0, (step - first) / (total - last - first)))
        assert remaining(tuned.model) == int((start - goal) * (1 - share) ** 3 + goal)


def test_adalora_adds_its_orthogonality_term(foreign):
    import torch

    tuned = applied(foreign, AdaLora(orth_reg_weight=0.3), total_steps=4)
    norms = []
    for name, p in adapters(tuned.model).items():
        if "lora_E" not in name:
            product = (p @ p.T if "lora_A" in name else p.T @ p).detach()
            norms.append(float(((product - torch.eye(12)) ** 2).sum().sqrt()))
    assert len(norms) == 2 * 2 * 6 * 2
    term = tuned.plan.members[0].extra_loss(tuned.state)
    assert float(term.detach()) == pytest.approx(0.3 * sum(norms) / len(norms), rel=1e-5)
    term.backward()
    assert AdaLora(orth_reg_weight=0.0).extra_loss(SimpleNamespace(kept={})) is None


@pytest.mark.parametrize("total", [2, 3, 5])
def test_adalora_reaches_its_rank_in_short_runs(total, foreign):
    tuned = applied(foreign, AdaLora(), kind="text", total_steps=total)
    steps(foreign, tuned, "text", total)
    assert remaining(tuned.model) == 8 * 12


def test_adalora_says_what_it_needs(foreign):
    with pytest.raises(PlanError, match="total_steps="):
        applied(foreign, AdaLora())
    with pytest.raises(PlanError, match="2 or more"):
        applied(foreign, AdaLora(), total_steps=1)
    for wrong in ({"target_r": 12}, {"tinit": 0.5, "tfinal": 0.5}, {"beta1": 0.0}):
        with pytest.raises(PlanError, match="adalora"):
            AdaLora(**wrong)


def test_adalora_survives_gradients_that_are_not_finite(foreign):
    """The loss scaler skips such an update, and its first ones usually are."""
    tuned = applied(foreign, AdaLora(), kind="text", total_steps=6)
    tuned.optimizer.register_step_post_hook(lambda *_: spoil(tuned) if tuned.state.step == 1 else None)
    steps(foreign, tuned, "text", 6)
    assert remaining(tuned.model) == 8 * 12


def spoil(tuned):
    for parameter in adapters(tuned.model).values():
        parameter.grad.fill_(math.inf)
