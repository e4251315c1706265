"""patch_dropout: which tokens go, where, and that nothing else changes."""

import math

import pytest

from strategies import PlanError, Recipe
from strategies.methods.data.patch_dropout import RANDOM_TOKENS, PatchDropout, drop_tokens, first_blocks
from strategies.methods.memory.checkpointing import Checkpointing
from strategies.methods.speed.compiling import Compile
from strategies.methods.weights.freeze import Freeze
from strategies.methods.weights.linear_probe import LinearProbe
from strategies.methods.weights.lora import Lora

STEPS = 4


def seen_by(module):
    """Note how many tokens a module is given."""
    lengths = []
    module.register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[1]))
    return lengths


def losses(foreign, tuned, kind="two", steps=STEPS):
    return [float(tuned.step(foreign.loss, foreign.batch(kind))) for _ in range(steps)]


@pytest.mark.parametrize(("rate", "keep_first", "kept"), [(0.5, 1, 9), (0.75, 1, 5), (0.1, 0, 15), (0.99, 2, 3)])
def test_first_tokens_stay_and_the_rest_is_drawn_evenly(rate, keep_first, kept):
    import torch

    torch.manual_seed(2)
    tokens = torch.arange(17.0).expand(2000, 17).unsqueeze(-1).repeat(1, 1, 3) + 1000 * torch.arange(3)
    part = drop_tokens(tokens, rate, keep_first)
    assert part.shape == (2000, kept, 3)
    places = part[:, :, 0].long()
    assert torch.equal(part[:, :, 2], part[:, :, 0] + 2000)
    assert (places.diff(dim=1) > 0).all()  # in order, none twice
    assert torch.equal(places[:, :keep_first], torch.arange(keep_first).expand(2000, -1))
    counts = places[:, keep_first:].flatten().bincount(minlength=17)[keep_first:] / 2000
    expected = (kept - keep_first) / (17 - keep_first)
    assert counts.sub(expected).abs().max() < 5 * (expected * (1 - expected) / 2000) ** 0.5
    assert len(set(map(tuple, places.tolist()))) > 3


@pytest.mark.parametrize(
    ("kind", "stack", "length", "kept"), [("two", "seeing.layers", 5, 3), ("conv", "encoder.layers", 16, 9)]
)
def test_all_blocks_see_fewer_tokens_in_training_and_all_in_evaluation(kind, stack, length, kept, foreign):
    import torch

    model = foreign.build(kind).eval()
    with torch.no_grad():
        untouched = foreign.outputs(model, foreign.batch(kind))
    tuned = Recipe.of([PatchDropout()]).apply(model)
    lengths = [seen_by(block) for block in model.get_submodule(stack)]
    norms = [seen_by(part) for part in model.get_submodule(stack).modules() if isinstance(part, torch.nn.LayerNorm)]
    tuned.step(foreign.loss, foreign.batch(kind))
    assert lengths[0] == [length]  # the first is given all and drops
    assert lengths[1:] == [[kept]]
    assert len(norms) == 4
    assert all(seen == [kept] for seen in norms)
    tuned = Recipe.of([PatchDropout()]).apply(foreign.build(kind))
    with tuned.evaluating():
        assert torch.equal(foreign.outputs(tuned.model, foreign.batch(kind)), untouched)


def test_draws_change_and_come_from_the_seed(foreign):
    runs = [
        losses(foreign, Recipe.of([PatchDropout()]).apply(foreign.build("two"), lr=1e-12, head_lr=1e-12, seed=s))
        for s in (0, 0, 1)
    ]
    assert runs[0] == runs[1] != runs[2]
    assert len(set(runs[0])) == STEPS  # nothing learns: the losses differ by the draws alone


@pytest.mark.parametrize("members", [[], [Lora()]], ids=["full", "lora"])
def test_checkpointing_repeats_the_same_tokens(members, foreign):
    import torch

    runs = []
    for extra in ([], [Checkpointing()]):
        tuned = Recipe.of([*members, PatchDropout(), *extra]).apply(foreign.build("two"))
        runs.append((losses(foreign, tuned), list(tuned.model.parameters())))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(*pair) for pair in zip(runs[0][1], runs[1][1], strict=True))


def test_checkpointing_keeps_the_fewer_tokens(foreign):
    """Not the 16 tokens before the drop, which the first block would get if it were repeated together with it."""
    import torch

    def kept(*members):
        tuned, shapes = Recipe.of(members).apply(foreign.build("conv")), []

        def pack(tensor):
            shapes.append(tuple(tensor.shape))
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            foreign.loss(tuned.model, foreign.batch("conv"))
        return shapes

    both, alone = kept(PatchDropout(), Checkpointing()), kept(Checkpointing())
    assert both.count((12, 9, 32)) == alone.count((12, 16, 32)) > 1
    assert (12, 16, 32) not in both
    assert sum(map(math.prod, both)) < sum(map(math.prod, alone))


@pytest.mark.slow
def test_compiled_without_a_break(foreign):
    import torch

    plain = losses(foreign, Recipe.of([PatchDropout()]).apply(foreign.build("two")))
    tuned = Recipe.of([PatchDropout(), Compile(backend="eager")]).apply(foreign.build("two"))
    assert losses(foreign, tuned) == pytest.approx(plain, abs=1e-5)
    with tuned.evaluating():
        foreign.outputs(tuned.model, foreign.batch("two"))
    assert not torch._dynamo.utils.counters["graph_break"]
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    losses(foreign, tuned)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs > 0


def test_a_frozen_tower_has_less_to_do(foreign):
    tuned = Recipe.of([Freeze(scope="vision"), PatchDropout(scope="vision")]).apply(foreign.build("two"))
    lengths = seen_by(tuned.model.seeing.layers[1])
    assert len(set(losses(foreign, tuned))) == STEPS
    assert lengths == [3] * STEPS
    assert RANDOM_TOKENS in PatchDropout().capabilities()
    assert not any(parameter.requires_grad for parameter in tuned.model.seeing.parameters())


def test_the_blocks_nearest_to_the_convolution_are_taken(foreign):
    """In a model that names no towers the text tower may come first."""
    from torch import nn

    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            whole = foreign.build("two")
            self.body = nn.ModuleDict({"reading": whole.reading, "seeing": whole.seeing})
            self.head = nn.Linear(64, 3)

    assert list(first_blocks(Hidden(), ["body"])) == ["body.seeing.layers.0"]
    assert list(first_blocks(foreign.build("conv"), ["stem", "encoder", "pool"])) == ["encoder.layers.0"]
    assert list(first_blocks(foreign.build("two"), ["seeing", "reading"])) == ["seeing.layers.0"]


@pytest.mark.parametrize(
    ("kind", "scope"), [("mlp", None), ("text", None), ("gpt", None), ("cnn", None), ("two", "text")]
)
def test_other_towers_are_refused(kind, scope, foreign):
    with pytest.raises(PlanError, match="no image tower in scope"):
        Recipe.of([PatchDropout(scope=scope)]).apply(foreign.build(kind))


@pytest.mark.parametrize("family", ["dinov3_vit", "beit", "swin"])
def test_blocks_that_know_places_are_refused_in_the_first_step(family):
    import torch
    from torch import nn
    from transformers import AutoConfig, AutoModel

    plain = {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "patch_size": 8,
    }
    windows = {"embed_dim": 16, "depths": [2, 2], "num_heads": [2, 2], "window_size": 2}
    config = AutoConfig.for_model(family, image_size=32, **(windows if family == "swin" else plain))
    model = nn.ModuleDict({"tower": AutoModel.from_config(config), "head": nn.Linear(32, 3)})
    tuned = Recipe.of([PatchDropout()]).apply(model)
    loss = lambda model, batch: model["head"](model["tower"](pixel_values=batch).last_hidden_state).square().mean()
    with pytest.raises(PlanError, match="more than tokens"):
        tuned.step(loss, torch.randn(2, 3, 32, 32))
    with tuned.evaluating():
        assert torch.isfinite(loss(tuned.model, torch.randn(2, 3, 32, 32)))


def test_a_tower_that_rests_in_evaluation_mode_is_refused(foreign):
    with pytest.raises(PlanError, match="evaluation mode"):
        Recipe.of([LinearProbe(), PatchDropout()]).apply(foreign.build("two"))


def test_too_few_tokens_are_refused(foreign):
    with pytest.raises(PlanError, match="of 5 tokens the first 4 stay"):
        losses(foreign, Recipe.of([PatchDropout(keep_first=4)]).apply(foreign.build("two")))
    with pytest.raises(PlanError, match="rate=1"):
        PatchDropout(rate=1)
