"""Sixteen bits everywhere: small updates must still count, on average and only there."""

import pytest

from strategies import Recipe
from strategies.methods.memory.checkpointing import Checkpointing
from strategies.methods.numerics.int8 import Int8
from strategies.methods.numerics.nf4 import Nf4
from strategies.methods.numerics.pure_bf16 import PureBf16, rounding_adamw, to_bf16
from strategies.methods.speed.compiling import Compile
from strategies.methods.weights.freeze import Freeze
from strategies.methods.weights.lora import Lora

KINDS = ["mlp", "text", "conv", "two", "gpt", "cnn"]


def moved(optimizer_of, dtype):
    """Give how far a weight of 1.0 goes in 50 updates at 1e-4 with a constant gradient, on average over many."""
    import torch

    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(512, dtype=dtype))
    optimizer = optimizer_of([{"params": [weight], "lr": 1e-4, "weight_decay": 0.0}])
    for _ in range(50):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    return 1 - float(weight.detach().double().mean())


def test_small_updates_count_with_stochastic_rounding_only():
    import torch

    plain = moved(torch.optim.AdamW, torch.float32)
    assert plain == pytest.approx(0.005, rel=0.01)
    assert moved(torch.optim.AdamW, torch.bfloat16) == 0.0
    assert moved(rounding_adamw, torch.bfloat16) == pytest.approx(plain, rel=0.1)
    assert moved(rounding_adamw, torch.float32) == pytest.approx(plain, rel=1e-3)


def evaluated(foreign, tuned, kind, seed=5):
    with tuned.evaluating():
        return foreign.outputs(tuned.model, foreign.batch(kind, seed=seed))


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_16_bit_but_batch_norms(kind, foreign):
    import torch
    from torch import nn

    plain = Recipe.of([]).apply(foreign.build(kind))
    tuned = Recipe.of([PureBf16()]).apply(foreign.build(kind), lr=1e-3)
    before = evaluated(foreign, tuned, kind)
    assert torch.allclose(before.float(), evaluated(foreign, plain, kind), atol=0.05)
    losses = [float(tuned.step(foreign.loss, foreign.batch(kind))) for _ in range(10)]
    assert losses[-1] < losses[0]
    kept = {id(p) for m in tuned.model.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    assert bool(kept) == (kind in {"conv", "cnn"})
    for parameter in tuned.model.parameters():
        expected = torch.float32 if id(parameter) in kept else torch.bfloat16
        assert parameter.dtype == expected
        state = tuned.optimizer.state[parameter]
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == expected
    assert not tuned.engine.scaler.is_enabled()
    assert isinstance(tuned.optimizer, torch.optim.Optimizer)
    for module in tuned.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean.dtype == torch.float32
            assert int(module.num_batches_tracked) == 10


def test_the_step_is_not_compiled_on_a_cpu(foreign):
    import torch

    tuned = Recipe.of([PureBf16()]).apply(foreign.build("mlp"))
    tuned.step(foreign.loss, foreign.batch("mlp"))
    assert not torch._dynamo.utils.counters["stats"]


def test_rates_follow_the_schedule(foreign):
    tuned = Recipe.of([PureBf16()]).apply(foreign.build("mlp"), total_steps=10, lr=0.5, head_lr=0.25)
    plain = Recipe.of([]).apply(foreign.build("mlp"), total_steps=10, lr=0.5, head_lr=0.25)
    for _ in range(3):
        for part in (tuned, plain):
            part.step(foreign.loss, foreign.batch("mlp"))
        rates = [[float(g["lr"]) for g in part.optimizer.param_groups] for part in (tuned, plain)]
        assert rates[0] == pytest.approx(rates[1])
        decays = [[g["weight_decay"] for g in part.optimizer.param_groups] for part in (tuned, plain)]
        assert decays[0] == decays[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "members",
    [[], [Lora()], [Freeze()], [Nf4(), Lora()], [Int8(), Lora()], [Checkpointing()], [Lora(), Checkpointing()],
     [Compile(backend="eager")]],
    ids=lambda members: "+".join(member.name for member in members) or "full",
)  # fmt: skip
def test_together_with_others(members, foreign):
    import torch

    tuned = Recipe.of([*members, PureBf16()]).apply(foreign.build("two"), lr=5e-3, head_lr=5e-3)
    losses = [float(tuned.step(foreign.loss, foreign.batch("two"))) for _ in range(10)]
    assert losses[-1] < losses[0]
    trained = [p for p in tuned.model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.bfloat16}
    evaluated(foreign, tuned, "two")
    tuned.step(foreign.loss, foreign.batch("two"))


def test_checkpointing_equals_plain_to_the_bit(foreign):
    runs = []
    for extra in ([], [Checkpointing()]):
        tuned = Recipe.of([PureBf16(), *extra]).apply(foreign.TwoTowers(dropout=0.1).float(), seed=4)
        runs.append(tuned)
    runs[1].model.load_state_dict(runs[0].model.state_dict())
    import torch

    losses = []
    for tuned in runs:
        torch.manual_seed(9)
        losses.append([float(tuned.step(foreign.loss, foreign.batch("two"))) for _ in range(3)])
    assert losses[0] == losses[1]


@pytest.mark.parametrize("members", [[], [Lora()], [Nf4(), Lora()]])
def test_saved_and_loaded_in_16_bits(members, foreign, tmp_path):
    import torch
    from safetensors.torch import load_file

    from strategies.saving.weights_file import load_weights

    plan = Recipe.of([*members, PureBf16()])
    tuned = plan.apply(foreign.build("text"))
    for _ in range(3):
        tuned.step(foreign.loss, foreign.batch("text"))
    tuned.save(tmp_path)
    saved = load_file(tmp_path / "tuned.safetensors")
    assert {tensor.dtype for tensor in saved.values() if tensor.is_floating_point()} == {torch.bfloat16}
    again = plan.apply(foreign.build("text"))
    load_weights(tmp_path, again.model, again.full_state())
    assert evaluated(foreign, again, "text", 6).equal(evaluated(foreign, tuned, "text", 6))


def test_quantised_weights_are_left_to_their_library(foreign):
    import torch

    plain = Recipe.of([Nf4(), Freeze()]).apply(foreign.build("text"))
    tuned = Recipe.of([Nf4(), Freeze(), PureBf16()]).apply(foreign.build("text"))
    ours, theirs = (part.model.bert.encoder.layer[0].intermediate.dense.weight for part in (tuned, plain))
    assert ours.dtype == torch.uint8
    assert ours.equal(theirs)


def test_a_model_on_meta(foreign):
    import torch

    with torch.device("meta"):
        model = foreign.TwoTowers()
    Recipe.of([Lora(), PureBf16()]).transform(model)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_integers_stay():
    import torch
    from torch import nn

    model = nn.Module()
    model.register_buffer("positions", torch.arange(3))
    model.register_buffer("table", torch.ones(3))
    to_bf16(model)
    assert (model.positions.dtype, model.table.dtype) == (torch.int64, torch.bfloat16)


def test_reasons(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    from strategies.methods.numerics.amp import native_bf16

    native_bf16.cache_clear()
    assert "emulates" in PureBf16().unavailable("cuda:0")
    native_bf16.cache_clear()
    assert PureBf16().unavailable("cpu") is None
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "would not move most weights" in PureBf16().unavailable("cpu")
