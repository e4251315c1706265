"""What an update is fed with: divided, grouped and sorted, it has the gradients of the whole."""

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as draw

from strategies import PlanError, compose
from strategies.compatibility.tiny_model import tiny_collate, tiny_items, tiny_loss, tiny_model
from strategies.execution.batch_order import BatchOrder
from strategies.execution.feed import Feed, FeedCollator, as_feed, map_tensors, moved, volume
from strategies.methods.data.bucketing import Bucketing


def order(size, batch_size, seed=0, **more):
    import torch

    return BatchOrder(size, batch_size, torch.Generator().manual_seed(seed), **more)


def quiet_model():
    import torch

    model = tiny_model()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def trained(text, steps=4, batch=None, loss_fn=tiny_loss, **options):
    import torch

    items = tiny_items()
    tuned = compose(text).apply(quiet_model(), total_steps=steps, **options)
    loader = tuned.loader(items, batch_size=12, collate=tiny_collate, generator=torch.Generator().manual_seed(3))
    feeds = [batch] * steps if batch is not None else [feed for _ in range(2) for feed in loader][:steps]
    return tuned, [float(tuned.step(loss_fn, feed)) for feed in feeds]


@given(sizes=draw.tuples(draw.integers(1, 60), draw.integers(1, 20)), keys=draw.integers(1, 9),
       drop_last=draw.booleans(), sort=draw.booleans(), pool=draw.integers(1, 4))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_an_order_visits_every_item_once(sizes, keys, drop_last, sort, pool):
    (size, batch_size), seed = sizes, sum(sizes)
    made = order(size, batch_size, seed, drop_last=drop_last, pool=pool)
    made.group_by([place * 7 % keys for place in range(size)])
    if sort:
        made.lengths = [place % 5 for place in range(size)]
    batches = list(made)
    seen = [place for batch in batches for place in batch]
    assert len(seen) == len(set(seen)) <= size
    assert set(seen) <= set(range(size))
    assert len(batches) == len(made)
    whole = [batch for batch in batches if len(batch) == batch_size]
    assert len(whole) == size // batch_size
    assert len(seen) == (size // batch_size * batch_size if drop_last else size)
    assert list(made) != batches or size < 12 or len(batches) < 3, "every pass is drawn anew"


@pytest.mark.parametrize("grouped", [False, True])
def test_what_falls_away_is_not_always_the_longest(grouped):
    made = order(50, 16, lengths=list(range(50)), pool=9)
    if grouped:
        made.group_by([place // 3 for place in range(50)])
    missing = [set(range(50)) - {place for batch in made for place in batch} for _ in range(30)]
    assert {len(gone) for gone in missing} == {2}
    assert len(set.union(*missing)) > 15
    assert sum(place >= 46 for gone in missing for place in gone) < 20


def test_groups_follow_each_other_and_lengths_are_alike():
    made = order(400, 20, seed=2)
    made.group_by([place % 80 for place in range(400)])
    assert sum(len({place % 80 for place in batch}) for batch in made) <= 20 * 5, (
        "five of a kind: at most one group is cut"
    )
    loose = order(400, 20, seed=2)
    assert sum(len({place % 80 for place in batch}) for batch in loose) > 20 * 15
    lengths = [(place * 37) % 100 for place in range(400)]
    spread = [
        max(lengths[p] for p in batch) - min(lengths[p] for p in batch)
        for batch in order(400, 20, lengths=lengths, pool=20)
    ]
    assert max(spread) <= 10
    assert list(order(400, 20, seed=2, lengths=lengths, pool=2)) == list(
        order(400, 20, seed=2, lengths=lengths, pool=2)
    )


def test_a_batch_is_divided_along_its_first_dimension():
    import torch

    batch = {"a": torch.arange(7), "b": (torch.arange(14).view(7, 2), torch.tensor(3.0))}
    parts = as_feed(batch).micro_batches(3)
    assert [part.size for part in parts] == [3, 3, 1]
    assert torch.equal(torch.cat([part.batch["b"][0] for part in parts]), batch["b"][0])
    assert as_feed(batch).micro_batches(7)[0].batch is batch
    assert volume(batch) == 22
    uneven = {"pictures": torch.zeros(4, 2), "words": torch.zeros(7, 2)}
    assert as_feed(uneven).micro_batches(7)[0].batch is uneven
    with pytest.raises(PlanError, match=r"4 and 7 rows.*tuned\.loader"):
        as_feed(uneven).micro_batches(3)


def test_a_feeder_divides_as_the_batch_before():
    calls = []

    def collate(items):
        calls.append(list(items))
        return items

    feeder = FeedCollator(collate)
    first = feeder([1, 2, 3, 4])
    assert calls == [[1, 2, 3, 4]]
    first.micro_batches(2)
    calls.clear()
    second = feeder([5, 6, 7, 8])
    assert [part.batch for part in second.micro_batches(2)] == [[5, 6], [7, 8]]
    assert calls == [[5, 6], [7, 8]], "collated once, in the loader"
    assert isinstance(second.subset([0, 3]), Feed)
    assert second.subset([0, 3]).items == [5, 8]


@pytest.mark.parametrize(
    "plan",
    [
        "full",
        "lora",
        *(
            pytest.param(plan, marks=pytest.mark.slow)
            for plan in ("amp(dtype='bf16')", "nf4+lora", "checkpointing", "adalora")
        ),
    ],
)
@pytest.mark.parametrize("n", [3, 5])
def test_accumulated_equals_the_big_batch(plan, n):
    """12 examples in 3 micro-batches of 4, and in 5 of 3, 3, 3 and 3: pictures shared across them."""
    whole, losses = trained(plan)
    parts, again = trained(f"{plan}+accumulate(n={n})")
    rounding = 2e-2 if "amp" in plan else 1e-5
    assert again == pytest.approx(losses, rel=rounding)
    moved = [
        (a - b).abs().max()
        for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True)
        if a.requires_grad
    ]
    assert max(moved) < (5e-3 if "amp" in plan else 2e-4), "Adam amplifies rounding where gradients are near zero"
    assert parts.plan.facts("cpu")["grad_accumulation"] == n


def test_accumulated_gradients_equal_the_big_batchs(foreign):
    import torch

    def gradients(text):
        found = {}
        tuned = compose(f"{text}+clip(norm=None)" if text else "clip(norm=None)").apply(foreign.build("two"))
        for name, parameter in tuned.model.named_parameters():
            parameter.register_post_accumulate_grad_hook(lambda p, name=name: found.__setitem__(name, p.grad.clone()))
        tuned.step(foreign.loss, foreign.batch("two"))
        return found

    whole, parts = gradients(""), gradients("accumulate(n=5)")
    assert whole.keys() == parts.keys()
    assert all(torch.allclose(whole[name], parts[name], atol=1e-7, rtol=1e-5) for name in whole)


def test_dividing_needs_rows_or_our_loader():
    batch = tiny_collate(tiny_items()[:12])
    assert len(trained("full", steps=1, batch=batch)[1]) == 1
    with pytest.raises(PlanError, match=r"tuned\.loader"):
        trained("accumulate(n=3)", batch=batch)


def test_a_mean_loss_and_each_examples_loss_are_the_same():
    each = trained("accumulate(n=3)")[1]
    assert trained("accumulate(n=3)", loss_fn=lambda model, batch: tiny_loss(model, batch).mean())[1] == each


def test_clip_and_its_default(foreign):
    import torch

    def norm(text, scale=100.0):
        tuned = compose(text).apply(foreign.build("mlp"))
        seen = []
        tuned.optimizer.register_step_pre_hook(
            lambda *_: seen.append(torch.cat([p.grad.flatten() for p in tuned.model.parameters()]))
        )
        tuned.step(lambda model, batch: scale * foreign.loss(model, batch), foreign.batch("mlp"))
        return seen[0]

    assert norm("full").norm() == pytest.approx(1, rel=1e-3)
    assert norm("clip(norm=0.25)").norm() == pytest.approx(0.25, rel=1e-3)
    assert norm("clip(norm=None)").norm() > 5
    assert norm("clip(norm=None, value=0.01)").abs().max() == pytest.approx(0.01)
    assert norm("clip(norm=2.0)", scale=1e-3).norm() < 0.1


@given(shape=draw.sampled_from(["cosine", "linear", "constant", "wsd"]), warmup=draw.sampled_from([0.0, 0.06, 0.5]),
       floor=draw.sampled_from([0.0, 0.1]), total=draw.integers(1, 300))  # fmt: skip
def test_schedules_rise_to_the_peak_and_fall_to_the_floor(shape, warmup, floor, total):
    (schedule,) = compose(f"schedule(shape='{shape}', warmup={warmup}, floor={floor})").members
    shares = [schedule.lr_multiplier(step, total) for step in range(total + 1)]
    rising = round(warmup * total)
    assert all(0 <= share <= 1 for share in shares)
    assert shares[:rising] == sorted(shares[:rising])
    assert shares[rising:] == sorted(shares[rising:], reverse=True)
    assert shares[rising] == pytest.approx(1)
    assert shares[-1] == pytest.approx(1.0 if shape == "constant" else floor if total > rising else 1.0)
    assert schedule.lr_multiplier(10**6, None) == 1


def test_the_usual_schedule_and_ours_agree(foreign):
    import torch

    plain = compose("full").apply(foreign.build("mlp"), total_steps=20)
    same = compose("schedule(shape='cosine')").apply(foreign.build("mlp"), total_steps=20)
    for _ in range(20):
        plain.step(foreign.loss, foreign.batch("mlp"))
        same.step(foreign.loss, foreign.batch("mlp"))
    assert all(torch.equal(a, b) for a, b in zip(plain.model.parameters(), same.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("plan", "words"),
    [
        ("group_by_image", r"keys\['vision'\].*none"),
        ("group_by_image(scope='sound')", "sound"),
        ("bucketing", "length"),
    ],
)
def test_what_items_do_not_say_is_asked_for(plan, words, foreign):
    import torch

    items = [{"id": 0, "keys": {"text": 1}}] * 8 if "sound" in plan else [{"id": 0}] * 8
    tuned = compose(plan).apply(foreign.build("mlp"))
    with pytest.raises(PlanError, match=words):
        tuned.loader(items, batch_size=2, collate=list, generator=torch.Generator())
    (problem,) = compose(plan).problems("cpu", foreign.build("mlp"), item=items[0])
    assert problem.kind == "unavailable"


def test_bucketing_cuts_padding_and_changes_no_loss():
    import torch

    items = tiny_items()
    tuned = compose("bucketing(multiple=1, pool=3)").apply(quiet_model())
    loader = tuned.loader(items, batch_size=12, collate=tiny_collate, generator=torch.Generator().manual_seed(3))
    widths = []
    for batch in loader:
        assert batch["attention_mask"].any(0).all()
        assert batch["input_ids"].shape == batch["attention_mask"].shape
        rows = [int(row) for row in batch["attention_mask"].sum(1)]
        widths.append(max(rows))
        whole = {"input_ids": torch.nn.functional.pad(batch["input_ids"], (0, 2)),
                 "attention_mask": torch.nn.functional.pad(batch["attention_mask"], (0, 2))}  # fmt: skip
        short, long = tiny_loss(tuned.model, batch), tiny_loss(tuned.model, {**batch, **whole})
        assert torch.allclose(short, long, atol=1e-5)
    assert min(widths) < max(widths)
    with pytest.raises(PlanError, match="attention_mask"):
        next(iter(tuned.loader(items, batch_size=4, collate=list, generator=torch.Generator())))


def test_named_tuples_are_batches_too():
    import torch

    class Pair(NamedTuple):
        x: object
        name: str

    moved = map_tensors([Pair(torch.ones(4), "n"), (torch.ones(2),)], lambda tensor: tensor + 1)
    assert isinstance(moved[0], Pair)
    assert (moved[0].x.tolist(), moved[0].name, moved[1][0].tolist()) == ([2.0] * 4, "n", [2.0] * 2)


def test_a_look_at_an_item_draws_nothing():
    """A data set may augment at random: training draws the same numbers with and without members that look."""
    import torch

    class Augmented(list):
        def __getitem__(self, place):
            torch.rand(3)
            return super().__getitem__(place)

    tuned = compose("accumulate(n=2)+clip").apply(quiet_model(), total_steps=3)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    order = torch.Generator().manual_seed(3)
    tuned.loader(Augmented(tiny_items()), batch_size=12, collate=tiny_collate, generator=order)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_set_smaller_than_a_batch_is_said():
    import torch

    tuned = compose("full").apply(quiet_model(), total_steps=3)
    with pytest.raises(PlanError, match="36 items make no batch of 64"):
        tuned.loader(tiny_items(), batch_size=64, collate=tiny_collate, generator=torch.Generator())


def test_bucketing_takes_batches_without_a_word():
    import torch

    batch = {"attention_mask": torch.zeros(2, 5), "input_ids": torch.ones(2, 5)}
    cut = Bucketing(multiple=1)._trimming(lambda items: batch)
    assert cut([])["input_ids"].shape == (2, 1)


class Graph:
    """An object of a user's own, as those of graph libraries, which moves itself."""

    def __init__(self, nodes):
        self.nodes, self.where = nodes, "cpu"

    def to(self, device):
        self.where = str(device)
        return self


class InPlace(Graph):
    def to(self, device):
        super().to(device)


def test_objects_that_move_themselves_are_moved():
    import torch
    from torch.nn.utils.rnn import pack_sequence

    batch = {
        "graphs": [Graph(1), InPlace(2)], "x": torch.ones(3), "kind": Graph, "type": torch.float16,
        "packed": pack_sequence([torch.ones(3, 2), torch.ones(1, 2)]), "text": "word",
    }  # fmt: skip
    found = moved(batch, torch.device("meta"))
    assert [graph.where for graph in found["graphs"]] == ["meta", "meta"]
    assert found["x"].is_meta
    assert found["packed"].data.is_meta
    assert not found["packed"].batch_sizes.is_meta  # torch keeps them on the CPU
    assert (found["kind"], found["type"], found["text"]) == (Graph, torch.float16, "word")


@pytest.mark.parametrize("text", ["full", "accumulate(n=2)"])
def test_what_a_tokenizer_gave_keeps_its_attributes(text, foreign):
    import torch
    from transformers import BatchEncoding

    batch = BatchEncoding({"x": torch.randn(4, 12), "y": torch.arange(4) % 3})
    seen = []

    def loss(model, given):
        seen.append(type(given))
        return torch.nn.functional.cross_entropy(model(given.x), given.y)

    compose(text).apply(foreign.build("mlp")).step(loss, batch)
    assert set(seen) == {BatchEncoding}
    assert batch.x.shape == (4, 12)
