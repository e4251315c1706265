"""Rounding to 8 bits on emulated hardware, and refusals where it could not help."""

import pytest

from strategies import PlanError, Recipe
from strategies.methods.memory.checkpointing import Checkpointing
from strategies.methods.numerics.amp import Amp
from strategies.methods.numerics.fp8 import Fp8, to_float8
from strategies.methods.numerics.nf4 import Nf4
from strategies.methods.speed.compiling import Compile
from strategies.methods.weights.freeze import Freeze
from strategies.methods.weights.lora import Lora
from strategies.protocol import Context
from strategies.saving.weights_file import load_weights

RECIPES = ["tensorwise", "rowwise"]


def float8_names(model):
    return [name for name, part in model.named_modules() if type(part).__name__ == "Float8Linear"]


def evaluated(foreign, tuned, kind):
    with tuned.evaluating():
        return foreign.outputs(tuned.model, foreign.batch(kind)).float()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_layer_rounds_both_factors_to_8_bits(recipe):
    import torch

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(32, 48))
    layer, x = model[0], torch.randn(5, 32)
    to_float8(model, ["0"], recipe, emulate=True)
    assert model[0].weight is layer.weight
    assert model[0].bias is layer.bias

    def rounded(values, dim):
        top = values.abs().amax(dim, keepdim=True) if recipe == "rowwise" else values.abs().max()
        scale = torch.finfo(torch.float8_e4m3fn).max / top
        if recipe == "rowwise":  # torchao rounds these scales down to powers of two
            scale = 2 ** torch.floor(torch.log2(scale))
        return (values * scale).to(torch.float8_e4m3fn).float() / scale

    expected = rounded(x, 1) @ rounded(layer.weight.detach(), 1).t() + layer.bias
    assert torch.allclose(model[0](x), expected, atol=1e-5)
    assert not torch.allclose(layer(x), expected, atol=1e-3)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("kind", ["text", "two", "conv", "mlp"])
def test_trains_and_stays_close(recipe, kind, foreign):
    import torch

    plain = Recipe.of([]).apply(foreign.build(kind))
    tuned = Recipe.of([Fp8(recipe=recipe, emulate=True)]).apply(foreign.build(kind), lr=3e-3, head_lr=3e-3)
    names = float8_names(tuned.model)
    head = tuned.context.layout.scopes["head"][0]
    assert names
    assert not any(name.startswith((head, "mix", "pool")) for name in names)
    before = evaluated(foreign, tuned, kind)
    assert torch.allclose(before, evaluated(foreign, plain, kind), atol=0.1)
    assert not before.equal(evaluated(foreign, plain, kind))
    losses = [float(tuned.step(foreign.loss, foreign.batch(kind))) for _ in range(10)]
    assert losses[-1] < losses[0]
    evaluated(foreign, tuned, kind)


@pytest.mark.slow
@pytest.mark.parametrize(
    "members",
    [[Lora()], [Freeze(last_n=1)], [Amp(dtype="bf16")], [Lora(), Amp(dtype="bf16")], [Compile(backend="eager")],
     [Lora(r=16), Amp(dtype="bf16"), Checkpointing()]],
    ids=lambda members: "+".join(member.name for member in members),
)  # fmt: skip
def test_together_with_others(members, foreign):
    tuned = Recipe.of([Fp8(emulate=True), *members]).apply(foreign.build("two"), lr=5e-3, head_lr=5e-3)
    names = float8_names(tuned.model)
    assert len(names) == 2 * 6 * 2
    assert not any("lora_" in name for name in names)
    assert any(name.endswith("base_layer") for name in names) == (members[0].name == "lora")
    losses = [float(tuned.step(foreign.loss, foreign.batch("two"))) for _ in range(10)]
    assert losses[-1] < losses[0]
    evaluated(foreign, tuned, "two")


def test_checkpointing_equals_plain_to_the_bit(foreign):
    losses = []
    for extra in ([], [Checkpointing()]):
        tuned = Recipe.of([Fp8(emulate=True), *extra]).apply(foreign.build("two"))
        losses.append([float(tuned.step(foreign.loss, foreign.batch("two"))) for _ in range(3)])
    assert losses[0] == losses[1]


def test_saved_weights_are_float_and_load(foreign, tmp_path):
    import torch
    from safetensors.torch import load_file

    plan = Recipe.of([Fp8(emulate=True)])
    tuned = plan.apply(foreign.build("text"))
    assert tuned.model.state_dict().keys() == foreign.build("text").state_dict().keys()
    tuned.step(foreign.loss, foreign.batch("text"))
    tuned.save(tmp_path)
    saved = load_file(tmp_path / "tuned.safetensors")
    assert {tensor.dtype for tensor in saved.values() if tensor.is_floating_point()} == {torch.float32}
    again = plan.apply(foreign.build("text"))
    load_weights(tmp_path, again.model, again.full_state())
    assert evaluated(foreign, again, "text").equal(evaluated(foreign, tuned, "text"))


def wide():
    import torch
    from torch import nn

    with torch.device("meta"):
        blocks = nn.Sequential(nn.Linear(768, 768), nn.Linear(768, 3072), nn.Linear(3072, 8192), nn.Linear(8192, 20))
        return nn.ModuleDict({"body": blocks, "head": nn.Linear(20, 3)})


@pytest.mark.parametrize(("recipe", "chosen"), [("tensorwise", ["body.1", "body.2"]), ("rowwise", ["body.2"])])
def test_only_layers_that_gain_are_swapped(recipe, chosen):
    import torch

    from strategies.structure.find_layout import find_layout

    model = wide()
    context = Context(find_layout(model, "head"), torch.device("cuda"), {"precision": "bf16"})
    Fp8(recipe=recipe).transform(model, context)
    assert float8_names(model) == chosen


def test_where_nothing_gains_it_is_refused_with_the_sizes(foreign):
    import torch

    from strategies.structure.find_layout import find_layout

    model = foreign.build("text")
    context = Context(find_layout(model), torch.device("cuda"), {"precision": "bf16"})
    with pytest.raises(PlanError, match=r"cannot help.*32→32, 32→64, 64→32"):
        Fp8().transform(model, context)
    with pytest.raises(PlanError, match="bf16 results only"):
        Fp8(recipe="rowwise").transform(model, Context(find_layout(model), torch.device("cuda"), {"precision": "fp32"}))
    for kind in ("gpt", "cnn"):  # Conv1D is no nn.Linear
        with pytest.raises(PlanError, match="there is: none"):
            Recipe.of([Fp8(emulate=True)]).transform(foreign.build(kind))


def test_excludes_quantised_storage(foreign):
    problems = Recipe.of([Fp8(emulate=True), Nf4(), Lora()]).problems("cpu", foreign.build("two"))
    assert [problem.kind for problem in problems] == ["slot"]


def test_reasons(monkeypatch):
    import torch

    assert "emulate=True" in Fp8().unavailable("cpu")
    assert Fp8(emulate=True).unavailable("cpu") is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 6))
    assert "8.9" in Fp8().unavailable("cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 9))
    assert Fp8().unavailable("cuda:0") is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install torchao" in Fp8(emulate=True).unavailable("cpu")
