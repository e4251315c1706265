"""Parameters of unusual kinds train, or are refused with what to write instead."""

import re

import pytest
import torch
from torch import nn

from strategies import PlanError, compose, load


class Spectral(nn.Module):
    """A layer with complex weights, as neural operators have."""

    def __init__(self):
        super().__init__()
        self.lift, self.head = nn.Linear(2, 16), nn.Linear(16, 1)
        self.modes = nn.Parameter(torch.randn(16, 16, 4, dtype=torch.cfloat) / 16)

    def forward(self, x):
        x = self.lift(x)
        low = torch.einsum("bki,iok->bko", torch.fft.rfft(x, dim=1)[:, :4], self.modes)
        return self.head(torch.relu(x + torch.fft.irfft(low, n=x.shape[1], dim=1)))


def loss_fn(model, batch):
    return model(batch).square().mean()


X = torch.linspace(-1, 1, 4 * 8 * 2).reshape(4, 8, 2)


@pytest.mark.parametrize(
    "plan",
    ["full", "ema", "accumulate(n=2)", "optimizer_in_backward", "clip(norm=0.5)", "lora(target_modules=['lift'])"],
)
def test_complex_weights_train_are_saved_and_loaded(plan, tmp_path):
    torch.manual_seed(0)
    model = Spectral()
    before = model.modes.detach().clone()
    tuned = compose(plan).apply(model, head="head", lr=1e-2, total_steps=5)
    losses = [float(tuned.step(loss_fn, X)) for _ in range(4)]
    assert losses[-1] < losses[0]
    moved = model.modes.detach() - before
    assert bool(moved.real.any() and moved.imag.any()) == ("lora" not in plan)
    tuned.save(tmp_path)
    with tuned.evaluating():
        expected = model(X)
    torch.manual_seed(0)
    with (again := load(tmp_path, Spectral())).evaluating():
        assert torch.equal(again.model(X), expected)
    if "lora" in plan:
        tuned.merge()
        assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("word", ["adamw8bit", "lion", "muon", "schedule_free", "pure_bf16"])
def test_complex_weights_are_refused_by_optimizers_of_real_ones(word):
    with pytest.raises(
        PlanError, match=rf"1 tensors that train are complex, which {word} is not made for: leave it out"
    ):
        compose(word).apply(Spectral(), head="head")


class Words(nn.Module):
    def __init__(self):
        super().__init__()
        self.words, self.fc, self.head = nn.EmbeddingBag(9, 8, sparse=True), nn.Linear(8, 8), nn.Linear(8, 1)

    def forward(self, ids):
        return self.head(self.fc(self.words(ids)).relu())


def test_sparse_gradients_are_refused_unless_they_rest():
    ids = torch.arange(8).reshape(2, 4)
    for plan in ("full", "optimizer_in_backward"):
        with pytest.raises(PlanError, match=r"'words' gives sparse gradients.*get_submodule\('words'\).sparse = False"):
            compose(plan).apply(Words(), head="head")
    compose("lora").apply(Words(), head="head").step(loss_fn, ids)
    dense = Words()
    dense.words.sparse = False
    compose("full").apply(dense, head="head").step(loss_fn, ids)


@pytest.mark.parametrize(
    ("plan", "words"),
    [("pissa(r=4)", "'lift' is in float64, which PEFT does not split"), ("nf4+lora", "but 1 in float64 (lift)")],
)
def test_what_does_not_go_with_double_precision_is_refused(plan, words):
    model = nn.ModuleDict({"lift": nn.Linear(64, 8), "head": nn.Linear(8, 1)}).double()
    with pytest.raises(PlanError, match=re.escape(words)):
        compose(plan).apply(model, head="head")
