"""Which blocks are recomputed with `every_n`, and that it changes no number."""

import pytest

from strategies import PlanError, Recipe
from strategies.methods.memory.checkpointing import Checkpointing
from strategies.methods.numerics.amp import Amp
from strategies.methods.speed.compiling import Compile
from strategies.methods.weights.freeze import Freeze
from strategies.methods.weights.lora import Lora


def wrapped(blocks):
    return ["forward" in vars(block) for block in blocks]


def deep(foreign, layers=5):
    import torch
    from torch import nn

    torch.manual_seed(3)
    block = lambda: nn.Sequential(nn.Linear(12, 12), nn.Tanh(), nn.Dropout(0.1))
    return nn.Sequential(nn.Sequential(*(block() for _ in range(layers))), nn.Linear(12, 3))


@pytest.mark.parametrize(
    ("every_n", "chosen"), [(1, [0, 1, 2, 3, 4]), (2, [0, 2, 4]), (3, [0, 3]), (4, [0, 4]), (9, [0])]
)
def test_every_nth_block(every_n, chosen, foreign):
    model = deep(foreign)
    Recipe.of([Checkpointing(every_n=every_n)]).apply(model)
    assert [index for index, yes in enumerate(wrapped(model[0])) if yes] == chosen


def test_counting_starts_at_the_first_block_that_trains(foreign):
    model = deep(foreign)
    Recipe.of([Freeze(last_n=3), Checkpointing(every_n=2)]).apply(model)
    assert wrapped(model[0]) == [False, False, True, False, True]


def test_each_tower_counts_for_itself(foreign):
    model = foreign.build("two")
    Recipe.of([Checkpointing(every_n=2)]).apply(model)
    assert wrapped(model.seeing.layers) == wrapped(model.reading.encoder.layer) == [True, False]


@pytest.mark.parametrize("members", [[], [Lora()], [Lora(dropout=0.5)]])
@pytest.mark.parametrize("every_n", [1, 2])
def test_equals_plain_to_the_bit(members, every_n, foreign):
    import torch

    runs = []
    for extra in ([], [Checkpointing(every_n=every_n)]):
        tuned = Recipe.of([*members, *extra]).apply(deep(foreign))
        losses = [float(tuned.step(foreign.loss, foreign.batch("mlp"))) for _ in range(3)]
        runs.append((losses, list(tuned.model.parameters())))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(*pair) for pair in zip(runs[0][1], runs[1][1], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("regional", [True, False])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
@pytest.mark.parametrize("half", [False, True])
def test_dropout_is_the_same_again_where_blocks_are_compiled(half, backend, regional, foreign):
    import torch

    runs = []
    precision = [Amp(dtype="bf16")] if half else []
    for extra in ([], [Checkpointing()]):
        members = [*precision, Compile(backend=backend, regional=regional), *extra]
        tuned = Recipe.of(members).apply(deep(foreign, layers=2), lr=0.1)
        losses = [float(tuned.step(foreign.loss, foreign.batch("mlp"))) for _ in range(3)]
        runs.append((losses, list(tuned.model.parameters())))
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(*pair) for pair in zip(runs[0][1], runs[1][1], strict=True))


def test_more_blocks_keep_less(foreign):
    import torch

    def kept(*members):
        tuned, sizes = Recipe.of(members).apply(deep(foreign)), []

        def pack(tensor):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            foreign.loss(tuned.model, foreign.batch("mlp"))
        return sum(sizes)

    assert kept(Checkpointing()) < kept(Checkpointing(every_n=2)) < kept(Checkpointing(every_n=4)) < kept()


def test_every_n_is_a_count():
    with pytest.raises(PlanError, match="every_n=0 should be int"):
        Checkpointing(every_n=0)
