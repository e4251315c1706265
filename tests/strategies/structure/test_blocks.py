"""Repeated blocks are those that a reader would name: no containers, no stages, no front ends, no adapted layers."""

import copy

import pytest
import torch
from torch import nn

from strategies import compose
from strategies.errors import PlanError
from strategies.structure.blocks import all_blocks, blocks_or_roots, called, chains, repeated_blocks


class Layer(nn.Module):
    """A block with a norm and two weights."""

    def __init__(self, width=8):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(width), nn.Linear(width, 16), nn.Linear(16, width)

    def forward(self, x):
        return x + self.down(self.up(self.norm(x)).relu())


class Other(Layer):
    """A block of another make, as in hybrids."""


class Attention(nn.Module):
    """A piece of a block."""

    def __init__(self):
        super().__init__()
        self.norm, self.to_q, self.to_v, self.to_out = nn.LayerNorm(8), *(nn.Linear(8, 8) for _ in range(3))

    def forward(self, x):
        return self.to_out(torch.tanh(self.to_q(self.norm(x))) * self.to_v(x))


class Piece(nn.Module):
    """A shortcut around a piece of any make."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return x + self.inner(x)


class Stage(nn.Module):
    """Blocks, and perhaps a layer that changes the width."""

    def __init__(self, depth, *, narrows=False):
        super().__init__()
        self.layers = nn.ModuleList(Layer() for _ in range(depth))
        self.reduction = nn.Linear(8, 8) if narrows else nn.Identity()

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.reduction(x)


class Mixture(nn.Module):
    """A block with experts, which are no blocks."""

    def __init__(self):
        super().__init__()
        self.norm, self.query, self.key = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)) for _ in range(3))


def model(**parts):
    return nn.ModuleDict(parts)


CASES = {
    "a stack": (model(layers=nn.ModuleList([Layer(), Layer()])), "layers.0 layers.1"),
    "a hybrid": (model(layers=nn.ModuleList([Layer(), Other(), Layer()])), "layers.0 layers.1 layers.2"),
    "stages": (
        model(stages=nn.ModuleList([Stage(1, narrows=True), Stage(2)])),
        "stages.0.layers.0 stages.1.layers.0 stages.1.layers.1",
    ),
    "lists in a list": (
        model(block=nn.ModuleList([nn.ModuleList([Layer()]), nn.ModuleList([Layer(), Layer()])])),
        "block.0.0 block.1.0 block.1.1",
    ),
    "pieces of blocks in lists": (
        model(layers=nn.ModuleList(nn.ModuleList([Piece(Attention()), Piece(Layer())]) for _ in range(2))),
        "layers.0 layers.1",
    ),
    "pieces of blocks by name": (
        model(layers=nn.ModuleList(nn.ModuleDict({"attention": Attention(), "mlp": Layer()}) for _ in range(2))),
        "layers.0 layers.1",
    ),
    "experts": (model(layers=nn.ModuleList([Mixture(), Mixture()])), "layers.0 layers.1"),
    "a front end": (
        model(
            convolutions=nn.ModuleList(nn.Sequential(nn.Conv1d(1, 1, 3), nn.GELU()) for _ in range(3)),
            layers=nn.ModuleList([Layer(), Layer()]),
        ),
        "layers.0 layers.1",
    ),
    "patch embeddings": (
        model(
            embeddings=nn.ModuleList(nn.Sequential(nn.Conv2d(3, 8, 4), nn.LayerNorm(8)) for _ in range(2)),
            block=nn.ModuleList([nn.ModuleList([Layer()]), nn.ModuleList([Layer()])]),
        ),
        "block.0.0 block.1.0",
    ),
    "weight norms": (
        model(net=nn.Sequential(*(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)) for _ in range(3)))), "",
    ),
    "single layers": (model(net=nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))), ""),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_blocks_are_those_that_a_reader_would_name(case):
    built, expected = CASES[case]
    assert list(repeated_blocks(built, ("",))) == expected.split()


def test_a_front_end_is_recomputed_too_and_a_scope_without_a_stack_is_one_block():
    front, _ = CASES["a front end"]
    assert list(all_blocks(front, ("",)))[:3] == [f"convolutions.{number}" for number in range(3)]
    assert list(blocks_or_roots(front, ("convolutions.0", "layers.0"))) == ["convolutions.0", "layers.0"]


def test_adapters_change_no_block():
    for case, (built, expected) in CASES.items():
        if "up" in str(built):
            tuned = compose("lora(target_modules=['up', 'down'], r=2)").apply(
                nn.ModuleDict({"body": built, "head": nn.Linear(8, 2)})
            )
            found = repeated_blocks(tuned.model["body"], ("",))
            assert list(found) == expected.split(), case
    plain = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 2))
    compose("lora(r=2)").apply(plain)
    assert repeated_blocks(plain, ("",)) == {}


def test_encoder_and_decoder_are_two_chains_whose_last_blocks_train():
    built = model(
        encoder=model(layers=nn.ModuleList([Layer(), Layer()])),
        decoder=model(layers=nn.ModuleList([Layer(), Layer(), Layer()])),
        head=nn.Linear(8, 2),
    )
    assert [len(chain) for chain in chains(built, ("encoder", "decoder"))] == [2, 3]
    tuned = compose("freeze(last_n=1)").apply(built)
    trained = {name.rpartition(".")[0].rpartition(".")[0] for name in tuned.trained if "head" not in name}
    assert trained == {"encoder.layers.1", "decoder.layers.2"}
    with pytest.raises(PlanError, match=r"last_n=3, but 'encoder' has 2 repeated blocks, from encoder\.layers\.0 on"):
        compose("freeze(last_n=3)").apply(
            model(encoder=built["encoder"], decoder=built["decoder"], head=nn.Linear(8, 2))
        )


def test_what_the_model_keeps_frozen_stays_so_in_the_last_blocks():
    built = model(layers=nn.ModuleList([Layer(), Layer()]), head=nn.Linear(8, 2))
    built["layers"][1].norm.requires_grad_(False)
    tuned = compose("freeze(last_n=1)").apply(built)
    assert {name for name in tuned.trained if "head" not in name} == {
        f"layers.1.{part}.{what}" for part in ("up", "down") for what in ("weight", "bias")
    }


def test_stages_of_one_module_are_one_chain():
    built = model(layer1=nn.Sequential(Layer(), Layer()), layer2=nn.Sequential(Layer(), Layer()), head=nn.Linear(8, 2))
    tuned = compose("freeze(last_n=1)").apply(built)
    assert {name.split(".")[0] for name in tuned.trained} == {"layer2", "head"}
    assert not any(name.startswith("layer2.0") for name in tuned.trained)


def test_blocks_in_bare_lists_are_recomputed():
    """A container is never called: checkpointing one would keep every activation."""
    calls = []

    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.ModuleList(nn.ModuleList(Layer() for _ in range(2)) for _ in range(2))
            self.head = nn.Linear(8, 2)

        def forward(self, x):
            for stage in self.block:
                for layer in stage:
                    x = layer(x)
            return self.head(x)

    built = Nested()
    built.block[0][0].up.register_forward_hook(lambda *_: calls.append(1))
    tuned = compose("checkpointing").apply(built)
    tuned.step(lambda m, batch: m(batch).square().mean(), torch.randn(3, 8))
    assert len(calls) == 2


class InPieces(nn.Module):
    """Blocks as lists of two pieces, which the model calls one by one."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.ModuleList([Attention(), Layer()]) for _ in range(3))
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        for attention, mlp in self.layers:
            x = mlp(x + attention(x))
        return self.head(x)


def test_a_block_in_pieces_counts_once():
    last = compose("freeze(last_n=1)").apply(InPieces()).trained
    assert {name.rpartition(".")[0].rpartition(".")[0] for name in last} == {"", "layers.2.0", "layers.2.1"}
    second = compose("lora(layers_to_transform=[1])").apply(InPieces(), head="head")
    assert set(second.adapted_layers()) == {"layers.1.0.to_q", "layers.1.0.to_v"}
    built = InPieces()
    assert len(called(blocks_or_roots(built, ("layers",)))) == 6  # what is recomputed
    compose("checkpointing").apply(built).step(lambda m, batch: m(batch).square().mean(), torch.randn(3, 8))


class TakenApart(nn.Module):
    """Layers in dictionaries, which nobody calls: a router beside experts, or two layers."""

    def __init__(self, *, experts):
        super().__init__()
        one = [nn.Linear(8, 2), nn.ModuleList(nn.Sequential(nn.Linear(8, 16), nn.Linear(16, 8)) for _ in range(2))]
        other = [nn.Linear(8, 8), nn.Linear(8, 8)]
        parts = one if experts else other
        self.layers = nn.ModuleList(
            nn.ModuleDict(dict(zip(("router", "experts"), copy.deepcopy(parts), strict=True))) for _ in range(2)
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        for layer in self.layers:
            experts = layer["experts"]
            shares = layer["router"](x).softmax(-1)
            if isinstance(experts, nn.ModuleList):
                x = x + sum(shares[:, :1] * expert(x) for expert in experts)
            else:
                x = x + shares * experts(x)
        return self.head(x)


def test_a_router_beside_experts_is_a_block_of_which_the_experts_are_called():
    model = TakenApart(experts=True)
    assert list(repeated_blocks(model, ("layers",))) == ["layers.0", "layers.1"]
    tuned = compose("freeze(last_n=1)").apply(model, head="head")
    last = {name for name, _ in model.named_parameters() if name.startswith("layers.1.")}
    assert tuned.trained == last | {"head.weight", "head.bias"}
    found = called(blocks_or_roots(model, ("layers",)))
    assert list(found) == [f"layers.{n}.experts.{m}" for n in range(2) for m in range(2)]


def test_checkpointing_is_refused_where_nothing_could_be_recomputed():
    with pytest.raises(PlanError, match="takes every block in scope apart and calls single layers"):
        compose("checkpointing").apply(TakenApart(experts=False), head="head")
    model = TakenApart(experts=True)
    compose("checkpointing").apply(model, head="head")
    assert "forward" in vars(model.layers[0]["experts"][1])
