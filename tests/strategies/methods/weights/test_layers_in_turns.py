"""progressive_freezing and lisa: what trains when, against the schedule, and what the optimizer keeps."""

import pytest

from strategies import PlanError, Recipe
from strategies.methods.memory.checkpointing import Checkpointing
from strategies.methods.numerics.amp import Amp
from strategies.methods.speed.compiling import Compile
from strategies.methods.weights.freeze import Freeze
from strategies.methods.weights.full import Full
from strategies.methods.weights.lisa import Lisa
from strategies.methods.weights.progressive_freezing import ProgressiveFreezing

BLOCK = "bert.encoder.layer."
BOTH = (ProgressiveFreezing(start=0.2), Lisa(n=1, period=2))


def watched(foreign, members, kind="text", steps=10, seed=0, **options):
    """Train, and give for each update: losses, the names that moved, that had a gradient, that have moments."""
    import torch

    model = foreign.build(kind)
    tuned = Recipe.of(members).apply(model, total_steps=steps, lr=1e-3, head_lr=1e-3, seed=seed, **options)
    names = {parameter: name for name, parameter in model.named_parameters()}
    log = []
    for _ in range(steps):
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        loss = tuned.step(foreign.loss, foreign.batch(kind)).item()
        moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
        trains = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        log.append((loss, moved, trains, {names[parameter] for parameter in tuned.optimizer.state}))
    return tuned, log


def resting_layers(names, every):
    """Say which of embeddings (0) and blocks (1, 2) have nothing among `names`."""
    parts = ("bert.embeddings.", f"{BLOCK}0.", f"{BLOCK}1.")
    assert all(any(name.startswith(part) for name in every) for part in parts)
    return [number for number, part in enumerate(parts) if not any(name.startswith(part) for name in names)]


def test_progressive_freezing_follows_its_schedule(foreign):
    """Three layers (embeddings and two blocks), ten updates, from 20 % on: floor(3 · (step/10 − 0.2) / 0.8) rest."""
    tuned, log = watched(foreign, [ProgressiveFreezing(start=0.2)])
    every = dict(tuned.model.named_parameters())
    expected = [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]
    for number, (_, moved, trains, moments) in zip(expected, log, strict=True):
        resting = list(range(number))
        assert resting_layers(trains, every) == resting_layers(moments, every) == resting
        assert resting_layers(moved, every) == resting
        assert {"bert.pooler.dense.weight", "classifier.weight"} <= moved
    assert tuned.saved_names == set(every)


def test_progressive_freezing_level_is_how_many_would_rest_at_the_end():
    part, full = ProgressiveFreezing(start=0.0, level=0.5), ProgressiveFreezing()
    assert [part.num_frozen(step, 8, 12) for step in (0, 1, 2, 4, 8)] == [0, 0, 1, 3, 6]
    assert [full.num_frozen(step, 8, 4) for step in range(9)] == [0, 0, 0, 0, 0, 1, 2, 3, 4]


def test_progressive_freezing_equals_full_before_its_start(foreign):
    _, plain = watched(foreign, [Full()])
    _, late = watched(foreign, [ProgressiveFreezing(start=0.9)])
    assert [entry[0] for entry in late] == [entry[0] for entry in plain]
    _, early = watched(foreign, [ProgressiveFreezing(start=0.2)])
    assert [entry[0] for entry in early[:6]] == [entry[0] for entry in plain[:6]]
    assert early[-1][0] != plain[-1][0]


def test_progressive_freezing_rests_batch_norms_too(foreign):
    tuned, _ = watched(foreign, [ProgressiveFreezing(start=0.0)], "cnn")
    first, last = tuned.model.stages
    assert not first.norm1.training
    assert last.norm1.training
    counts = [int(part.norm1.num_batches_tracked) for part in (first, last)]
    assert counts == [7, 10]  # layers: stem, two blocks; block 0 is the second to rest, in update 7


def test_progressive_freezing_needs_an_end(foreign):
    with pytest.raises(PlanError, match="total_steps"):
        Recipe.of([ProgressiveFreezing()]).apply(foreign.build("text"))
    with pytest.raises(PlanError, match="level=0"):
        ProgressiveFreezing(level=0)


def test_lisa_trains_one_block_per_tower_at_a_time(foreign):
    tuned, log = watched(foreign, [Lisa(n=1, period=2)], "two", steps=12)
    every = dict(tuned.model.named_parameters())
    seen = set()
    for step, (_, moved, trains, moments) in enumerate(log):
        drawn = []
        for tower, stack in enumerate(("seeing.layers.", "reading.encoder.layer.")):
            (number,) = tuned.plan.members[0].draw(0, step // 2, tower, 2)
            awake = {name for name in every if name.startswith(f"{stack}{number}.")}
            assert awake
            assert {name for name in trains if name.startswith(stack)} == awake
            assert {name for name in moments if name.startswith(stack)} == awake
            assert {name for name in moved if name.startswith(stack)} == awake
            drawn.append(number)
        seen.add(tuple(drawn))
        outside = {name for name in every if not name.startswith(("seeing.layers.", "reading.encoder.layer."))}
        assert outside == {name for name in moved if name in outside}
    assert len(seen) > 2  # the towers are drawn apart
    assert tuned.saved_names == set(every)


def test_lisa_starts_each_draw_with_fresh_moments(foreign):
    tuned, _ = watched(foreign, [Lisa(n=1, period=5)], steps=8)
    steps = {
        name: int(tuned.optimizer.state[p]["step"])
        for name, p in tuned.model.named_parameters()
        if p in tuned.optimizer.state
    }
    draws = [tuned.plan.members[0].draw(0, period, 0, 2) for period in (0, 1)]
    assert steps["classifier.weight"] == 8
    blocks = {count for name, count in steps.items() if name.startswith(BLOCK)}
    assert blocks == ({8} if draws[0] == draws[1] else {3})


def test_lisa_draws_are_fair_and_of_the_seed_alone():
    import torch

    lisa = Lisa(n=3)
    state = torch.get_rng_state()
    draws = [lisa.draw(7, number, 0, 12) for number in range(400)]
    assert torch.equal(torch.get_rng_state(), state)
    assert all(len(set(draw)) == 3 for draw in draws)
    counts = torch.tensor([number for draw in draws for number in draw]).bincount(minlength=12)
    assert counts.min() > 60  # 100 expected
    assert counts.max() < 140
    assert draws[:5] == [lisa.draw(7, number, 0, 12) for number in range(5)]
    assert draws != [lisa.draw(8, number, 0, 12) for number in range(400)]
    assert draws != [lisa.draw(7, number, 1, 12) for number in range(400)]


def test_lisa_leaves_dropout_as_it_is(foreign):
    """With the rates at nearly zero nothing learns, so the losses show the dropout masks alone."""

    def losses(strategy):
        import torch

        torch.manual_seed(11)
        model = foreign.TwoTowers(0.3)
        tuned = Recipe.of([strategy]).apply(model, lr=1e-12, head_lr=1e-12)
        return [tuned.step(foreign.loss, foreign.batch("two")).item() for _ in range(4)]

    plain = losses(Full())
    assert losses(Lisa(n=1, period=2)) == pytest.approx(plain, abs=1e-6)
    assert len(set(plain)) == 4


def test_lisa_refuses_where_none_would_rest(foreign):
    with pytest.raises(PlanError, match="'body' has 2 blocks"):
        Recipe.of([Lisa()]).apply(foreign.build("text"))


@pytest.mark.slow
@pytest.mark.parametrize("strategy", BOTH)
@pytest.mark.parametrize("others", [[Checkpointing()], [Amp()], [Amp(dtype="fp16")]])
def test_works_with_checkpointing_and_mixed_precision(strategy, others, foreign):
    tuned, log = watched(foreign, [strategy, *others], "two")
    _, alone = watched(foreign, [strategy], "two")
    loose = 0.0 if isinstance(others[0], Checkpointing) else 0.05
    assert [entry[0] for entry in log] == pytest.approx([entry[0] for entry in alone], abs=loose)
    assert [entry[2] for entry in log] == [entry[2] for entry in alone]
    assert log[-1][0] < log[0][0]
    assert len({frozenset(entry[2]) for entry in log}) > 1
    assert tuned.skipped_steps() == 0


@pytest.mark.slow
@pytest.mark.parametrize("strategy", BOTH)
def test_compiled_runs_are_the_same(strategy, foreign):
    import torch

    _, log = watched(foreign, [strategy, Compile(backend="eager")], "text")
    _, alone = watched(foreign, [strategy], "text")
    assert [entry[0] for entry in log] == pytest.approx([entry[0] for entry in alone], abs=1e-4)
    assert not torch._dynamo.utils.counters["graph_break"]
    assert 1 < torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 8


@pytest.mark.parametrize("strategy", BOTH)
def test_what_ever_trained_is_saved(strategy, foreign, tmp_path):
    import torch

    from strategies.saving.weights_file import load_weights

    tuned, _ = watched(foreign, [strategy])
    tuned.save(tmp_path)
    fresh = foreign.build("text")
    again = Recipe.of([strategy]).apply(fresh, total_steps=10)
    load_weights(tmp_path, fresh, again.full_state())
    pairs = zip(tuned.model.parameters(), fresh.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("kind", [ProgressiveFreezing, Lisa])
def test_one_tower_only(kind, foreign):
    options = {"n": 1} if kind is Lisa else {"start": 0.0}
    tuned, log = watched(foreign, [kind(scope="text", **options), Freeze(scope="vision")], "two")
    assert not any(name.startswith("seeing") for entry in log for name in entry[2])
    assert any(entry[2] != log[0][2] for entry in log) or kind is Lisa
    text = {name for name, _ in tuned.model.named_parameters() if name.startswith("reading")}
    assert not text <= log[-1][2]
