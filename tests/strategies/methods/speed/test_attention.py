"""Each kernel gives the same numbers, and the one asked for is the one that runs."""

import pytest

from strategies import PlanError, Recipe
from strategies.methods.memory.checkpointing import Checkpointing
from strategies.methods.numerics.amp import Amp
from strategies.methods.speed.attention import Attention
from strategies.methods.speed.compiling import Compile
from strategies.methods.weights.lora import Lora

OPERATORS = {
    "math": "aten::_scaled_dot_product_attention_math",
    "flash": "aten::_scaled_dot_product_flash_attention_for_cpu",
}


def operators(call):
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        call()
    return {event.key for event in profile.key_averages()}


def evaluated(foreign, tuned, kind):
    with tuned.evaluating():
        return foreign.outputs(tuned.model, foreign.batch(kind)).float()


@pytest.mark.parametrize("kind", ["text", "two", "gpt", "conv"])
@pytest.mark.parametrize("backend", ["math", "flash"])
def test_the_kernel_runs_in_training_and_evaluation_and_changes_no_numbers(kind, backend, foreign):
    import torch

    plain = Recipe.of([]).apply(foreign.build(kind))
    tuned = Recipe.of([Attention(backend=backend)]).apply(foreign.build(kind))
    (other,) = set(OPERATORS) - {backend}
    for call in (lambda: evaluated(foreign, tuned, kind), lambda: tuned.step(foreign.loss, foreign.batch(kind))):
        seen = operators(call)
        assert OPERATORS[backend] in seen
        assert OPERATORS[other] not in seen
        assert "aten::_native_multi_head_attention" not in seen
    plain.step(foreign.loss, foreign.batch(kind))
    assert torch.allclose(evaluated(foreign, tuned, kind), evaluated(foreign, plain, kind), atol=2e-4)


def test_outside_the_plan_torch_chooses_again(foreign):
    import torch

    tuned = Recipe.of([Attention()]).apply(foreign.build("conv"))
    tuned.step(foreign.loss, foreign.batch("conv"))
    q = torch.randn(1, 2, 4, 16)
    seen = operators(lambda: torch.nn.functional.scaled_dot_product_attention(q, q, q))
    assert OPERATORS["flash"] in seen
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("kind", ["text", "two", "gpt"])
def test_eager_reaches_every_tower_after_adapters(kind, foreign):
    import torch
    from transformers import PreTrainedModel

    plain = Recipe.of([Lora()]).apply(foreign.build(kind))
    tuned = Recipe.of([Lora(), Attention(backend="eager")]).apply(foreign.build(kind))
    inside = [part for part in tuned.model.modules() if isinstance(part, PreTrainedModel)]
    assert {part.config._attn_implementation for part in inside} == {"eager"}
    seen = operators(lambda: tuned.step(foreign.loss, foreign.batch(kind)))
    assert not any("scaled_dot_product" in name for name in seen)
    plain.step(foreign.loss, foreign.batch(kind))
    assert torch.allclose(evaluated(foreign, tuned, kind), evaluated(foreign, plain, kind), atol=2e-4)


@pytest.mark.parametrize("backend", ["math", "flash", "eager"])
def test_checkpointing_recomputes_with_the_same_kernel(backend, foreign):
    import torch

    plain = Recipe.of([Attention(backend=backend)]).apply(foreign.build("two"))
    again = Recipe.of([Attention(backend=backend), Checkpointing()]).apply(foreign.build("two"))
    assert plain.step(foreign.loss, foreign.batch("two")).equal(again.step(foreign.loss, foreign.batch("two")))
    pairs = zip(plain.model.parameters(), again.model.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)
    if backend in OPERATORS:
        (other,) = set(OPERATORS) - {backend}
        assert OPERATORS[other] not in operators(lambda: again.step(foreign.loss, foreign.batch("two")))


@pytest.mark.parametrize("kind", ["text", "conv"])
def test_compiled_blocks_stay_whole(kind, foreign):
    import torch

    captured = []
    for members in ([], [Attention()]):
        torch._dynamo.reset()
        torch._dynamo.utils.counters.clear()
        tuned = Recipe.of([*members, Compile(backend="eager")]).apply(foreign.build(kind))
        tuned.step(foreign.loss, foreign.batch(kind))
        captured.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
        assert not torch._dynamo.utils.counters["graph_break"]
    assert captured[0] == captured[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "members", [[Amp(dtype="bf16")], [Compile(backend="eager")], [Lora(), Compile(backend="eager")]]
)
def test_together_with_others(members, foreign):
    import torch

    plain = Recipe.of(members).apply(foreign.build("two"))
    tuned = Recipe.of([*members, Attention()]).apply(foreign.build("two"))
    ours, theirs = (part.step(foreign.loss, foreign.batch("two")) for part in (tuned, plain))
    assert torch.allclose(ours, theirs, atol=0.05 if members[0].name == "amp" else 1e-5)
    if members[-1].name == "compile":
        assert not torch._dynamo.utils.counters["graph_break"]


def test_models_without_attention_are_refused(foreign):
    for kind in ("mlp", "cnn"):
        with pytest.raises(PlanError, match="do nothing"):
            Recipe.of([Attention()]).transform(foreign.build(kind))
    with pytest.raises(PlanError, match="transformers' own code"):
        Recipe.of([Attention(backend="eager")]).transform(foreign.build("conv"))


def test_the_refusal_says_which_code_computes_attention():
    from torch import nn
    from transformers import BertConfig, BertModel, MambaConfig, MambaModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}

    def refusal(part, backend="math"):
        with pytest.raises(PlanError) as refused:
            Recipe.of([Attention(backend=backend)]).transform(nn.ModuleDict({"body": part, "head": nn.Linear(2, 2)}))
        return str(refused.value)

    bert = BertModel(BertConfig(**sizes, vocab_size=10, attn_implementation="eager"))
    words = refusal(bert)
    assert "BertModel computes attention by its 'eager' code" in words
    assert "set_attn_implementation('sdpa')" in words
    bert.set_attn_implementation("sdpa")
    Recipe.of([Attention()]).transform(nn.ModuleDict({"body": bert, "head": nn.Linear(2, 2)}))
    mamba = MambaModel(MambaConfig(hidden_size=16, num_hidden_layers=1, vocab_size=10))
    assert "MambaModel has no attention by torch's function" in refusal(mamba)
    assert "run 'eager' already" in refusal(mamba, "eager")
    assert "no transformers model" in refusal(nn.Linear(2, 2))


def test_inputs_a_kernel_does_not_take_are_explained(foreign):
    tuned = Recipe.of([Attention(backend="flash")]).apply(foreign.TwoTowers(dropout=0.1))
    with pytest.raises(PlanError, match=r"dropout in attention.*backend='math'"):
        tuned.step(foreign.loss, foreign.batch("two"))


def test_the_rest_of_the_errors_pass_unchanged():
    from strategies.methods.speed.attention import forward_with_kernel

    def broken():
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        forward_with_kernel("math", broken)()


def test_unavailable_kernels_have_reasons(monkeypatch):
    import torch

    for backend in ("efficient", "cudnn"):
        assert "GPUs only" in Attention(backend=backend).unavailable("cpu")
    for backend in ("eager", "math", "flash"):
        assert Attention(backend=backend).unavailable("cpu") is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "8.0" in Attention(backend="flash").unavailable("cuda:0")
    assert Attention(backend="efficient").unavailable("cuda:0") is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert Attention(backend="flash").unavailable("cuda:0") is None


def test_flash_on_a_gpu_wants_16_bits(foreign):
    from dataclasses import replace

    import torch

    model = foreign.build("two")
    context = replace(Recipe.of([]).transform(model), device=torch.device("cuda"))
    with pytest.raises(PlanError, match="add amp"):
        Attention(backend="flash").transform(model, context)


def test_a_model_on_meta(foreign):
    import torch

    for backend in ("math", "eager"):
        with torch.device("meta"):
            model = foreign.TwoTowers()
        Recipe.of([Attention(backend=backend)]).transform(model)
        assert {part.device.type for part in model.parameters()} == {"meta"}
        own = {part.config._attn_implementation for part in (model.seeing, model.reading)}
        assert own == ({"eager"} if backend == "eager" else {"sdpa"})
