"""ema against its formula, and where the averages are seen: evaluation, files, merged models; never in training."""

import gc

import pytest

from strategies import PlanError, Recipe
from strategies.methods.numerics.pure_bf16 import PureBf16
from strategies.methods.update.ema import Ema
from strategies.methods.update.schedule_free import ScheduleFree
from strategies.methods.weights.full import Full
from strategies.methods.weights.lisa import Lisa
from strategies.methods.weights.lora import Lora
from strategies.saving.weights_file import load_weights

STEPS = 8


def trained(foreign, members, kind="text", steps=STEPS, watch=None):
    tuned = Recipe.of(members).apply(foreign.build(kind), total_steps=steps, lr=5e-3, head_lr=5e-3)
    for _ in range(steps):
        tuned.step(foreign.loss, foreign.batch(kind))
        if watch is not None:
            watch.append({name: p.detach().clone() for name, p in tuned.model.named_parameters()})
    return tuned


def evaluated(foreign, tuned, kind="text"):
    with tuned.evaluating():
        return foreign.outputs(tuned.model, foreign.batch(kind)).float()


def weights_of(model):
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def same(one, other):
    import torch

    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("members", [[], [Lisa(n=1, period=2)]], ids=["full", "lisa"])
@pytest.mark.parametrize("decay", [0.999, 0.3])
def test_averages_follow_the_formula(members, decay, foreign):
    """Also for weights that rest from the first update on: they are averaged as they are."""
    log = []
    tuned = trained(foreign, [*members, Ema(decay=decay)], watch=log)
    expected = {name: value.double() for name, value in log[0].items()}
    for update, weights in enumerate(log[1:], 1):
        keep = min(decay, (1 + update) / (10 + update))
        for name, value in expected.items():
            expected[name] = keep * value + (1 - keep) * weights[name].double()
    with tuned.evaluating():
        shown = weights_of(tuned.model)
    assert max(float((shown[name] - expected[name]).abs().max()) for name in shown) < 1e-6
    moved = {name for name in shown if not (shown[name] - log[-1][name]).abs().max() < 1e-5}
    assert len(moved) > len(shown) / 2


def test_training_goes_on_as_without_it(foreign):
    """Evaluations in between included: losses, weights and moments are those of a plain run to the bit."""
    runs = []
    for extra in ([], [Ema()]):
        tuned = Recipe.of(extra).apply(foreign.build("two"), total_steps=STEPS)
        losses = []
        for _ in range(STEPS):
            losses.append(float(tuned.step(foreign.loss, foreign.batch("two"))))
            evaluated(foreign, tuned, "two")
        runs.append((losses, weights_of(tuned.model)))
    assert runs[0][0] == runs[1][0]
    assert same(runs[0][1], runs[1][1])


def test_weights_come_back_also_after_errors_and_nested(foreign, tmp_path):
    tuned = trained(foreign, [Ema()])
    before, scores = weights_of(tuned.model), evaluated(foreign, tuned)
    with tuned.evaluating():
        averages = weights_of(tuned.model)
        with tuned.evaluating():
            assert same(weights_of(tuned.model), averages)
        assert same(weights_of(tuned.model), averages)
        tuned.save(tmp_path)
        assert same(weights_of(tuned.model), averages)
    assert same(weights_of(tuned.model), before)
    assert not same(averages, before)
    with pytest.raises(KeyError), tuned.evaluating():
        raise KeyError
    assert same(weights_of(tuned.model), before)
    assert (evaluated(foreign, tuned) == scores).all()


def test_what_is_saved_is_the_average(foreign, tmp_path):
    import torch

    tuned = trained(foreign, [Ema(decay=0.9)])
    with tuned.evaluating():
        averages = weights_of(tuned.model)
    tuned.save(tmp_path)
    again = Recipe.of([Ema(decay=0.9)]).apply(foreign.build("text"))
    load_weights(tmp_path, again.model, again.full_state())
    assert same(weights_of(again.model), averages)
    assert torch.equal(evaluated(foreign, again), evaluated(foreign, tuned))


def test_merged_models_hold_the_average(foreign):
    """Of the adapters, and of what trains beside them."""
    import torch

    tuned = trained(foreign, [Lora(), Ema()])
    scores = evaluated(foreign, tuned)
    head = tuned.model.classifier.weight.detach().clone()
    merged = tuned.merge(lambda model: foreign.outputs(model, foreign.batch("text")))
    assert merged.output_drift < 1e-5
    plain = foreign.build("text")
    plain.load_state_dict(tuned.model.state_dict())
    with torch.no_grad():
        found = foreign.outputs(plain.eval(), foreign.batch("text"))
    assert torch.allclose(found, scores, atol=1e-5)
    assert not torch.equal(tuned.model.classifier.weight, head)
    assert torch.allclose(evaluated(foreign, tuned), scores, atol=1e-5)
    assert not tuned.model.training


def test_batch_norms_keep_their_statistics(foreign):
    import torch

    tuned = trained(foreign, [Ema()], "cnn")
    statistics = {name: value.clone() for name, value in tuned.model.named_buffers()}
    with tuned.evaluating():
        assert all(torch.equal(value, statistics[name]) for name, value in tuned.model.named_buffers())
    assert float(statistics["stages.0.norm1.running_mean"].abs().max()) > 0


def test_sixteen_bit_weights_are_averaged_in_32(foreign):
    """Updates of 1e-6 are lost in bf16; their average over many updates is not."""
    import torch

    tuned = trained(foreign, [PureBf16(), Ema(decay=0.999)], steps=3)
    averages = tuned.context.member_state[Ema(decay=0.999)]
    assert {shadow.dtype for shadow in averages.shadows} == {torch.float32}
    assert {weight.dtype for weight in averages.weights} == {torch.bfloat16}
    start = averages.shadows[0].clone()
    averages.updates = 100_000
    averages.weights[0].data += 1
    averages.update(0.999)
    assert torch.allclose(averages.shadows[0] - start, (averages.weights[0].float() - start) * 0.001, atol=1e-5)


def test_decay_is_a_share(foreign):
    with pytest.raises(PlanError, match="decay=1"):
        Ema(decay=1)
    assert Recipe.of([Full(), Ema()]).problems("cpu", foreign.build("text")) == ()


@pytest.mark.parametrize("averaging", [Ema(decay=0.3), ScheduleFree()], ids=str)
def test_averages_that_are_never_put_back_stay(averaging, foreign):
    """A loop that is dropped while they are in place: collecting it, at whatever moment, changes no weight."""
    tuned = trained(foreign, [averaging])
    raw = weights_of(tuned.model)
    left = tuned.averaged()
    shown = weights_of(tuned.model)
    assert not same(raw, shown)
    del left
    gc.collect()
    assert same(weights_of(tuned.model), shown)
