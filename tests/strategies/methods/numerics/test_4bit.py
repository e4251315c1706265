"""Both 4-bit formats, and GPT-2's transposed layers under every quantised storage."""

import pytest

from strategies import PlanError, Recipe
from strategies.methods.memory.checkpointing import Checkpointing
from strategies.methods.numerics.amp import Amp
from strategies.methods.numerics.fp4 import Fp4
from strategies.methods.numerics.int8 import Int8
from strategies.methods.numerics.nf4 import Nf4
from strategies.methods.numerics.quantise import to_4bit
from strategies.methods.speed.compiling import Compile
from strategies.methods.weights.freeze import Freeze
from strategies.methods.weights.lora import Lora
from strategies.saving.weights_file import load_weights

FOUR_BIT = {"nf4": Nf4, "fp4": Fp4}


def evaluated(foreign, tuned, kind):
    with tuned.evaluating():
        return foreign.outputs(tuned.model, foreign.batch(kind)).float()


def outputs_by_layer(foreign, model, kind, names):
    """Give the inputs and outputs of the named layers."""
    import torch

    seen, handles = {}, []
    for name in names:
        hook = lambda module, inputs, output, name=name: seen.__setitem__(name, (inputs[0], output))
        handles.append(model.get_submodule(name).register_forward_hook(hook))
    with torch.no_grad():
        foreign.outputs(model.eval(), foreign.batch(kind))
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("word", FOUR_BIT)
@pytest.mark.parametrize("double_quant", [True, False])
def test_layers_hold_the_format_that_bitsandbytes_makes(word, double_quant, foreign):
    import bitsandbytes.functional as bnb
    import torch

    weight = foreign.build("text").bert.encoder.layer[0].intermediate.dense.weight.detach()
    model = foreign.build("text")
    plan = Recipe.of([FOUR_BIT[word](double_quant=double_quant), Freeze()])
    plan.transform(model)
    layer = model.bert.encoder.layer[0].intermediate.dense
    assert layer.weight.equal(weight)  # float until the model moves
    plan.apply(model := foreign.build("text"))
    layer = model.bert.encoder.layer[0].intermediate.dense
    assert layer.weight.dtype == torch.uint8
    assert layer.weight.quant_state.quant_type == word
    assert layer.weight.quant_state.nested == double_quant
    packed = bnb.quantize_4bit(weight.flatten(), quant_type=word, blocksize=32, compress_statistics=double_quant)
    theirs = bnb.dequantize_4bit(*packed).reshape(weight.shape)
    assert bnb.dequantize_4bit(layer.weight, layer.weight.quant_state).equal(theirs)


def test_nf4_is_closer_than_fp4_on_normal_weights():
    import bitsandbytes.functional as bnb
    import torch

    torch.manual_seed(0)
    weight, errors = torch.randn(256, 256), {}
    for word in FOUR_BIT:
        errors[word] = float((bnb.dequantize_4bit(*bnb.quantize_4bit(weight, quant_type=word)) - weight).norm())
    assert 0.08 < errors["nf4"] / float(weight.norm()) < 0.10
    assert 0.11 < errors["fp4"] / float(weight.norm()) < 0.13


@pytest.mark.parametrize(("strategy", "atol"), [(Int8(), 0.012), (Nf4(), 0.12), (Fp4(), 0.15)])
def test_conv1d_layers_stay_close_to_their_float_selves(strategy, atol, foreign):
    import torch

    plain, quantised = foreign.build("gpt"), foreign.build("gpt")
    Recipe.of([strategy, Freeze()]).apply(quantised)
    names = [name for name, part in plain.named_modules() if type(part).__name__ == "Conv1D"]
    assert len(names) == 2 * 4
    for name, (inputs, output) in outputs_by_layer(foreign, quantised, "gpt", names).items():
        layer = quantised.get_submodule(name)
        assert layer.weight.dtype in {torch.uint8, torch.int8}
        with torch.no_grad():
            expected = plain.get_submodule(name)(inputs)
        assert float((output - expected).norm() / expected.norm()) < atol
        assert not output.equal(expected)


@pytest.mark.parametrize("kind", ["mlp", "text", "conv", "two", "gpt"])
def test_fp4_trains_adapters(kind, foreign, tmp_path):
    plan = Recipe.of([Fp4(), Lora()])
    tuned = plan.apply(foreign.build(kind), lr=5e-3, head_lr=5e-3)
    losses = [float(tuned.step(foreign.loss, foreign.batch(kind))) for _ in range(10)]
    assert losses[-1] < losses[0]
    after = evaluated(foreign, tuned, kind)
    tuned.step(foreign.loss, foreign.batch(kind))  # evaluation must not spoil training
    tuned.save(tmp_path)
    again = plan.apply(foreign.build(kind))
    load_weights(tmp_path, again.model, again.full_state())
    assert evaluated(foreign, again, kind).equal(evaluated(foreign, tuned, kind))
    assert not evaluated(foreign, tuned, kind).equal(after)


@pytest.mark.parametrize("extra", [Amp(dtype="bf16"), Compile(backend="eager"), Checkpointing()], ids=lambda x: x.name)
def test_fp4_together_with_others(extra, foreign):
    import torch

    plain = Recipe.of([Fp4(), Lora()]).apply(foreign.build("two"))
    tuned = Recipe.of([Fp4(), Lora(), extra]).apply(foreign.build("two"))
    for _ in range(2):
        losses = [part.step(foreign.loss, foreign.batch("two")) for part in (plain, tuned)]
    assert torch.allclose(*losses, atol=0.05 if extra.name == "amp" else 1e-5)


def test_the_formats_share_a_slot(foreign):
    problems = Recipe.of([Fp4(), Nf4(), Lora()]).problems("cpu", foreign.build("two"))
    assert [problem.kind for problem in problems] == ["slot"]
    assert Recipe.of([Fp4(scope="vision"), Nf4(scope="text"), Lora()]).problems("cpu", foreign.build("two")) == ()


def test_a_model_on_meta(foreign):
    import torch

    with torch.device("meta"):
        model = foreign.TwoTowers()
    Recipe.of([Fp4(), Lora()]).transform(model)
    here = foreign.build("two")
    Recipe.of([Fp4(), Lora()]).transform(here)
    shapes = [{name: p.shape for name, p in part.named_parameters()} for part in (model, here)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("width", [32, 64, 96, 128, 160])
@pytest.mark.parametrize("word", FOUR_BIT)
def test_every_width_is_unpacked_as_it_was_packed(word, width):
    import torch

    torch.manual_seed(0)
    layer, x = torch.nn.Linear(width, 80, bias=False), torch.randn(50, width)
    torch.nn.init.normal_(layer.weight)
    expected = layer(x).detach()
    output = to_4bit(layer, quant_type=word, double_quant=False).to("cpu")(x).detach()
    assert float((output - expected).norm() / expected.norm()) < {"nf4": 0.1, "fp4": 0.13}[word]


def test_layers_too_narrow_stay_float(foreign):
    import torch

    model = foreign.build("mlp")  # 12 → 32 → 32 → 3
    Recipe.of([Nf4(), Freeze()]).apply(model)
    assert type(model[0]) is torch.nn.Linear
    assert model[2].weight.dtype == torch.uint8
    with pytest.raises(PlanError, match="no multiple of 32"):
        Recipe.of([Nf4(scope="0"), Freeze()]).apply(foreign.build("mlp"))
