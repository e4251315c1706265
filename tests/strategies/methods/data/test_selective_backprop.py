"""selective_backprop: when it chooses, whom, how many pass backward, and what it leaves alone."""

from collections import Counter

import pytest

from strategies import PlanError, Recipe
from strategies.compatibility.tiny_model import BATCH, tiny_collate, tiny_items, tiny_loss, tiny_model
from strategies.methods.data.accumulate import Accumulate
from strategies.methods.data.selective_backprop import SelectiveBackprop, draw

STEPS = 10


def each(foreign, sizes=None):
    """Give a loss function that returns each example's loss and notes how many pass forward, and backward."""
    import torch

    def loss(model, data):
        if sizes is not None and model.training:  # no look at the loss function itself
            sizes.append((len(data["labels"]), torch.is_grad_enabled()))
        scores = foreign.outputs(model, data).float()
        return torch.nn.functional.cross_entropy(scores, data["labels"], reduction="none")

    return loss


def trained(foreign, members, kind="mlp", sizes=None, seed=0):
    tuned = Recipe.of(members).apply(foreign.build(kind), total_steps=STEPS, lr=5e-3, head_lr=5e-3, seed=seed)
    return [float(tuned.step(each(foreign, sizes), foreign.batch(kind))) for _ in range(STEPS)]


@pytest.mark.parametrize(("options", "selective"), [
    ({}, [6, 8]),  # 0.5 ≤ step/10 < 0.9, but for every second update
    ({"interrupt": 0}, [5, 6, 7, 8]),
    ({"interrupt": 3, "start": 0.0, "end": 1.0}, [0, 1, 3, 4, 6, 7, 9]),
])  # fmt: skip
def test_it_chooses_in_its_window_and_only_the_chosen_pass_backward(options, selective, foreign):
    sizes = []
    trained(foreign, [SelectiveBackprop(**options)], sizes=sizes)
    expected = []
    for step in range(STEPS):
        expected += [(12, False), (6, True)] if step in selective else [(12, True)]
    assert sizes == expected


@pytest.mark.parametrize(("keep", "count"), [(0.1, 2), (0.25, 3), (0.7, 9), (0.9, 11), (0.99, 12)])
def test_a_share_is_kept_rounded_up(keep, count, foreign):
    sizes = []
    trained(foreign, [SelectiveBackprop(keep=keep, interrupt=0)], sizes=sizes)
    assert [size for size, backward in sizes if backward] == [12] * 5 + [count] * 4 + [12]


def test_updates_outside_the_window_are_untouched(foreign):
    """With dropout, too: until the window opens nothing is drawn."""
    import torch

    def losses(members):
        torch.manual_seed(11)
        tuned = Recipe.of(members).apply(foreign.TwoTowers(0.3), total_steps=STEPS, lr=1e-3)
        return [float(tuned.step(each(foreign), foreign.batch("two"))) for _ in range(STEPS)]

    plain, ours = losses([]), losses([SelectiveBackprop()])
    assert ours[:6] == plain[:6]
    assert ours[6] != plain[6]


def test_keeping_nearly_all_changes_nothing(foreign):
    assert trained(foreign, [SelectiveBackprop(keep=0.999, start=0.0, end=1.0, interrupt=0)]) == trained(foreign, [])


def test_draws_are_of_the_seed(foreign):
    runs = [trained(foreign, [SelectiveBackprop(start=0.0)], seed=seed) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("keep", [0.25, 0.4, 0.8])
def test_one_is_drawn_with_the_stated_probability(keep):
    """P ∝ percentile^(1/keep − 1), whatever the losses themselves and their order are."""
    import torch

    torch.manual_seed(4)
    losses = torch.tensor([3.0, 0.1, 50.0, 0.2, 7.0])
    ranks = {1: 0, 3: 1, 0: 2, 4: 3, 2: 4}
    draws = 3000
    counts = Counter(draw(losses, 1, keep)[0] for _ in range(draws))
    weights = {place: ((rank + 0.5) / 5) ** (1 / keep - 1) for place, rank in ranks.items()}
    for place, weight in weights.items():
        share = weight / sum(weights.values())
        assert abs(counts[place] / draws - share) < 4.5 * (share * (1 - share) / draws) ** 0.5


def test_several_are_drawn_without_replacement_and_hard_ones_more_often():
    import torch

    torch.manual_seed(4)
    losses = torch.arange(12.0).flip(0)
    counts = Counter()
    for _ in range(1000):
        chosen = draw(losses, 6, 0.5)
        assert len(set(chosen)) == 6
        counts.update(chosen)
    often = [counts[place] for place in range(12)]
    assert sum(often[:6]) > 1.8 * sum(often[6:])
    assert min(often[:4]) > max(often[-4:])
    assert often[-1] > 0  # the easiest is seen, too


def test_batches_of_a_loader_are_collated_again():
    """Pictures shared by several sentences are in a batch once, and only those of the chosen go through the tower."""
    import torch

    tuned = Recipe.of([SelectiveBackprop(start=0.0, end=1.0, interrupt=0)]).apply(tiny_model(), total_steps=3)
    order = torch.Generator().manual_seed(3)
    rows = []

    def loss(model, batch):
        if model.training:
            rows.append((len(batch["labels"]), len(batch["pictures"])))
        assert int(batch["picture_index"].max()) == len(batch["pictures"]) - 1
        return tiny_loss(model, batch)

    for batch in tuned.loader(tiny_items(), batch_size=BATCH, collate=tiny_collate, generator=order):
        tuned.step(loss, batch)
    assert [sentences for sentences, _ in rows] == [12, 6] * 3
    assert all(after <= min(before, 6) for (_, before), (_, after) in zip(rows[::2], rows[1::2], strict=True))


def test_the_chosen_can_be_divided_further(foreign):
    sizes = []
    found = trained(foreign, [SelectiveBackprop(start=0.0, interrupt=0), Accumulate(n=3)], sizes=sizes)
    assert sizes[:4] == [(12, False), (2, True), (2, True), (2, True)]
    assert found == pytest.approx(trained(foreign, [SelectiveBackprop(start=0.0, interrupt=0)]), abs=1e-5)


def test_what_it_needs_is_asked_for(foreign):
    with pytest.raises(PlanError, match="total_steps"):
        Recipe.of([SelectiveBackprop()]).apply(foreign.build("mlp"))
    tuned = Recipe.of([SelectiveBackprop(start=0.0)]).apply(foreign.build("mlp"), total_steps=2)
    with pytest.raises(PlanError, match="each example's loss"):
        tuned.step(foreign.loss, foreign.batch("mlp"))
    for options in ({"start": 0.9, "end": 0.5}, {"interrupt": 1}, {"keep": 1}, {"keep": 0}, {"end": 0}):
        with pytest.raises(PlanError, match=next(iter(options))):
            SelectiveBackprop(**options)
