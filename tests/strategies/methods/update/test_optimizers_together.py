"""The optimizers beside other strategies: weights that rest, adapters over 4 bits, fp16, saved states, refusals."""

import copy

import pytest

from strategies import PlanError, Recipe
from strategies.methods.numerics.amp import Amp
from strategies.methods.numerics.nf4 import Nf4
from strategies.methods.update.adafactor import Adafactor
from strategies.methods.update.adamw8bit import AdamW8bit
from strategies.methods.update.apollo import Apollo
from strategies.methods.update.galore import GaLore
from strategies.methods.update.lion import Lion
from strategies.methods.update.lion8bit import Lion8bit
from strategies.methods.update.muon import Muon
from strategies.methods.update.paged_adamw8bit import PagedAdamW8bit
from strategies.methods.update.schedule_free import ScheduleFree
from strategies.methods.weights.bitfit import BitFit
from strategies.methods.weights.lisa import Lisa
from strategies.methods.weights.lora import Lora
from strategies.methods.weights.progressive_freezing import ProgressiveFreezing

CLASSES = (AdamW8bit, PagedAdamW8bit, Lion, Lion8bit, Adafactor, GaLore, Apollo, Muon, ScheduleFree)
EVERY = [kind(**kind.trial) for kind in CLASSES]
KINDS = ("mlp", "text", "conv", "two", "gpt", "cnn")
NOT_ON_CNN = (Adafactor, GaLore, Apollo, Muon)


@pytest.fixture(autouse=True)
def _pages_anywhere(monkeypatch):
    monkeypatch.setattr(PagedAdamW8bit, "unavailable", lambda self, device: None)


def names(strategy):
    return strategy.name


def evaluated(foreign, tuned, data):
    with tuned.evaluating():
        return foreign.outputs(tuned.model, data).float()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strategy", EVERY, ids=names)
def test_learns_moves_what_trains_and_saves(strategy, kind, foreign, tmp_path):
    import torch

    from strategies.saving.weights_file import load_weights

    plan, data = Recipe.of([strategy]), foreign.batch(kind)
    if kind == "cnn" and isinstance(strategy, NOT_ON_CNN):
        with pytest.raises(PlanError, match="leave it out"):
            plan.apply(foreign.build(kind), total_steps=12)
        return
    tuned = plan.apply(foreign.build(kind), total_steps=12, lr=5e-3, head_lr=5e-3)
    start = [(name, p, p.detach().clone()) for name, p in tuned.model.named_parameters()]
    losses = [float(tuned.step(foreign.loss, data)) for _ in range(12)]
    assert min(losses[-3:]) < losses[0]
    assert not [name for name, p, old in start if torch.equal(p, old)]
    after = evaluated(foreign, tuned, data)
    tuned.save(tmp_path)
    again = plan.apply(foreign.build(kind), total_steps=12)
    load_weights(tmp_path, again.model, again.full_state())
    assert torch.equal(evaluated(foreign, again, data), after)


@pytest.mark.slow
@pytest.mark.parametrize("rests", [Lisa(n=1, period=2), ProgressiveFreezing(start=0.0)], ids=names)
@pytest.mark.parametrize("strategy", EVERY, ids=names)
def test_weights_that_rest_stay_and_come_back(strategy, rests, foreign):
    import torch

    tuned = Recipe.of([strategy, rests]).apply(foreign.build("two"), total_steps=10, lr=1e-3, head_lr=1e-3)
    seen = set()
    for _ in range(8):
        before = {name: p.detach().clone() for name, p in tuned.model.named_parameters()}
        tuned.step(foreign.loss, foreign.batch("two"))
        moved = {name for name, p in tuned.model.named_parameters() if not torch.equal(p, before[name])}
        assert moved == {name for name, p in tuned.model.named_parameters() if p.requires_grad}
        assert not any(state for p, state in tuned.optimizer.state.items() if not p.requires_grad)
        seen.add(frozenset(moved))
    assert len(seen) > 1


@pytest.mark.slow
@pytest.mark.parametrize("others", [[Nf4(), Lora()], [Lora(), Amp(dtype="fp16")], [Amp()]], ids=lambda o: o[0].name)
@pytest.mark.parametrize("strategy", EVERY, ids=names)
def test_beside_adapters_4_bits_and_16(strategy, others, foreign):
    tuned = Recipe.of([strategy, *others]).apply(foreign.build("two"), total_steps=10, lr=5e-3, head_lr=5e-3)
    losses = [float(tuned.step(foreign.loss, foreign.batch("two"))) for _ in range(10)]
    assert min(losses[-3:]) < losses[0]
    assert tuned.skipped_steps() == 0


@pytest.mark.parametrize("strategy", EVERY, ids=names)
def test_a_saved_optimizer_goes_on(strategy, foreign):
    """Take state and weights to a second model: both go the same way, and rates still reach the optimizer."""
    one, other = (Recipe.of([strategy]).apply(foreign.build("text"), lr=2e-3, head_lr=2e-3) for _ in range(2))
    data = foreign.batch("text")
    for _ in range(3):
        one.step(foreign.loss, data)
    other.model.load_state_dict(one.model.state_dict())
    other.optimizer.load_state_dict(copy.deepcopy(one.optimizer.state_dict()))
    other.state.step = one.state.step
    losses = [[float(part.step(foreign.loss, data)) for _ in range(3)] for part in (one, other)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)
    assert one.memory() == other.memory()


def test_two_optimizers_share_state_and_groups(foreign):
    tuned = Recipe.of([Muon()]).apply(foreign.build("text"))
    tuned.step(foreign.loss, foreign.batch("text"))
    optimizer = tuned.optimizer
    muon, adamw = optimizer.parts
    assert set(optimizer.state) == set(tuned.model.parameters())
    assert [type(part).__name__ for part in (muon, adamw)] == ["Muon", "AdamW"]
    assert [id(group) for group in optimizer.param_groups] == [
        id(group) for part in (muon, adamw) for group in part.param_groups
    ]
    embedding = tuned.model.bert.embeddings.word_embeddings.weight
    assert "exp_avg_sq" in optimizer.state[embedding]
    assert "exp_avg_sq" in optimizer.state[tuned.model.classifier.weight]
    assert "momentum_buffer" in optimizer.state[tuned.model.bert.pooler.dense.weight]


def test_reasons(foreign, monkeypatch):
    monkeypatch.undo()
    assert "adamw8bit" in PagedAdamW8bit().unavailable("cpu")
    assert PagedAdamW8bit().unavailable("cuda:0") is None
    for strategy in (GaLore(r=32), Apollo(r=64), Muon(), Adafactor(min_rows=65)):
        with pytest.raises(PlanError, match="leave it out"):
            Recipe.of([strategy, *([BitFit()] if isinstance(strategy, Muon) else [])]).apply(foreign.build("text"))
    assert Muon().unavailable("cpu") is None
    monkeypatch.setattr("strategies.methods.update.muon.version", lambda name: "2.8.1+cu126")
    assert "2.8.1" in Muon().unavailable("cpu")
    with pytest.raises(PlanError, match="optimizer"):
        Recipe.of([Lion(), Muon()]).apply(foreign.build("text"))
