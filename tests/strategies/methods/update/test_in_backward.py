"""optimizer_in_backward against usual training without clipping, to the bit, and its gradients' memory."""

import pytest

from strategies import PlanError, Recipe
from strategies.errors import SelfCheckError
from strategies.methods.memory.checkpointing import Checkpointing
from strategies.methods.numerics.amp import Amp
from strategies.methods.speed.compiling import Compile
from strategies.methods.update.clip import Clip
from strategies.methods.update.ema import Ema
from strategies.methods.update.layer_decay import LayerDecay
from strategies.methods.update.optimizer_in_backward import OptimizerInBackward
from strategies.methods.weights.adalora import AdaLora
from strategies.methods.weights.freeze import Freeze
from strategies.methods.weights.lisa import Lisa
from strategies.methods.weights.lora import Lora
from strategies.methods.weights.progressive_freezing import ProgressiveFreezing
from strategies.prediction.storage_tracker import StorageTracker, held_tensors, tensors_in

STEPS = 6
MEMBERS = {
    "full": [],
    "lora": [Lora()],
    "layer_decay": [LayerDecay()],
    "lisa": [Lisa(n=1, period=2)],
    "progressive_freezing": [ProgressiveFreezing(start=0.2)],
    "checkpointing": [Checkpointing()],
    "amp": [Amp()],
    "ema": [Ema()],
}


def trained(foreign, members, kind="two", wrap=None):
    """Train with large steps; give losses, weights, and what was evaluated at the end."""
    tuned = Recipe.of(members).apply(foreign.build(kind), total_steps=STEPS, lr=5e-3, head_lr=5e-3)
    if wrap is not None:
        wrap(tuned)
    losses = [float(tuned.step(foreign.loss, foreign.batch(kind))) for _ in range(STEPS)]
    with tuned.evaluating():
        scores = foreign.outputs(tuned.model, foreign.batch(kind))
    return tuned, losses, scores


def assert_same(one, other):
    import torch

    assert one[1] == other[1]
    assert torch.equal(one[2], other[2])
    pairs = zip(one[0].model.parameters(), other[0].model.parameters(), strict=True)
    assert all(torch.equal(*pair) for pair in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("members", MEMBERS.values(), ids=list(MEMBERS))
def test_equals_training_without_clipping_to_the_bit(members, foreign):
    ours = trained(foreign, [*members, OptimizerInBackward()])
    assert_same(ours, trained(foreign, [*members, Clip(norm=None)]))
    assert ours[1][-1] < ours[1][0]


def test_differs_from_training_with_clipping(foreign):
    assert trained(foreign, [OptimizerInBackward()])[1] != trained(foreign, [Clip(norm=0.1)])[1]


def counting_adamw(groups):
    """An AdamW that counts its updates in its groups, as those without a schedule do, and steps by the count."""
    import torch

    class Counting(torch.optim.AdamW):
        def step(self, closure=None):
            del closure
            for group in self.param_groups:
                group["updates"] = group.get("updates", 0) + 1
                group["lr"] *= 0.5 ** group["updates"]
            return super().step()

    return Counting(groups)


def test_what_an_optimizer_counts_in_its_groups_counts_updates(foreign, monkeypatch):
    monkeypatch.setattr("strategies.training.apply.adamw", counting_adamw)
    ours = trained(foreign, [OptimizerInBackward()], "text")
    assert_same(ours, trained(foreign, [Clip(norm=None)], "text"))
    assert [group["updates"] for group in ours[0].optimizer.param_groups] == [STEPS] * len(
        ours[0].optimizer.param_groups
    )


@pytest.mark.slow
@pytest.mark.parametrize("regional", [True, False])
def test_compiled_too(regional, foreign):
    import torch

    compiled = Compile(backend="aot_eager", regional=regional)
    ours = trained(foreign, [compiled, OptimizerInBackward()])
    assert not torch._dynamo.utils.counters["graph_break"]
    assert_same(ours, trained(foreign, [compiled, Clip(norm=None)]))


def test_tied_weights_are_updated_once(foreign):
    """A weight used twice gets its whole gradient before its step."""
    import torch
    from torch import nn

    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(3)
            self.body, self.head = nn.Linear(12, 12), nn.Linear(12, 3)

        def forward(self, x):
            return self.head(torch.tanh(self.body(torch.tanh(self.body(x)))))

    found = []
    for member in (OptimizerInBackward(), Clip(norm=None)):
        tuned = Recipe.of([member]).apply(Tied(), total_steps=STEPS)
        losses = [float(tuned.step(foreign.loss, foreign.batch("mlp"))) for _ in range(STEPS)]
        found.append((losses, tuned.optimizer.state[tuned.model.body.weight]["step"].item()))
    assert found[0] == found[1]
    assert found[0][1] == STEPS


def wide(layers):
    import torch
    from torch import nn

    torch.manual_seed(3)
    return nn.Sequential(*[nn.Linear(128, 128) for _ in range(layers)], nn.Linear(128, 1))


def test_gradients_never_lie_in_memory_together():
    """Weights far outweigh activations here: the peak falls by the gradients of all layers but one or two."""
    import torch

    layers, peaks = 12, []
    batch = torch.randn(2, 128)
    for member in (Clip(norm=None), OptimizerInBackward()):
        tuned = Recipe.of([member]).apply(wide(layers), head=str(layers))
        left = []
        update = tuned.engine.update

        def count(tuned=tuned, left=left, update=update):
            left.append(sum(p.grad is not None for p in tuned.model.parameters()))
            update()

        tuned.engine.update = count
        loss = lambda model, batch: model(batch).square().mean()
        tuned.step(loss, batch)
        tracker = StorageTracker()
        tracker.mark(held_tensors(tuned.model), "weights")
        tracker.mark(tensors_in(tuned.optimizer.state), "optimizer")
        static = tracker.live_bytes
        with tracker:
            tuned.step(loss, batch)
        peaks.append(tracker.peak_bytes - static)
        assert left == [0 if member == OptimizerInBackward() else 2 * layers + 2] * 2
    one = 4 * (128 * 128 + 128)
    assert peaks[0] > layers * one
    assert peaks[1] < 2.5 * one


def test_a_backward_pass_from_elsewhere_leaves_gradients_and_weights(foreign):
    import torch

    tuned, _, _ = trained(foreign, [OptimizerInBackward()], "text")
    before = [parameter.detach().clone() for parameter in tuned.model.parameters()]
    foreign.loss(tuned.model, foreign.batch("text")).backward()
    assert all(parameter.grad is not None for parameter in tuned.model.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, tuned.model.parameters(), strict=True))


def test_the_first_update_is_checked(foreign):
    def unused(tuned):
        tuned.model.register_parameter("extra", tuned.model.classifier.bias.__class__(before.clone()))

    import torch

    before = torch.ones(3)
    with pytest.warns(UserWarning, match="no gradient in the first 5 updates: extra"):
        trained(foreign, [OptimizerInBackward()], "text", unused)

    def endless(tuned):
        tuned.model.classifier.bias.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(SelfCheckError, match=r"not finite in classifier\.bias"):
        trained(foreign, [OptimizerInBackward()], "text", endless)


def test_what_needs_all_gradients_is_refused(foreign):
    with pytest.raises(PlanError, match="dtype='bf16'"):
        Recipe.of([OptimizerInBackward(), Amp(dtype="fp16")]).apply(foreign.build("text"))
    with pytest.raises(PlanError, match="both decide 'clipping'"):
        Recipe.of([OptimizerInBackward(), Clip()]).apply(foreign.build("text"))
    with pytest.raises(PlanError, match="nothing"):
        Recipe.of([OptimizerInBackward(), Freeze(scope="*")]).apply(foreign.build("text"))


def test_adalora_finds_no_gradients(foreign, monkeypatch):
    """The conflict between the two as a repro: when it no longer fails, the row can go."""
    monkeypatch.setattr("strategies.language.checks.CONFLICTS", ())
    tuned = Recipe.of([AdaLora(), OptimizerInBackward()]).apply(foreign.build("text"), total_steps=STEPS)
    with pytest.raises(PlanError, match="no gradient is left after the update"):
        tuned.step(foreign.loss, foreign.batch("text"))
