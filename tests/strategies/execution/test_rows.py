"""What a batch's examples are: rows of tensors, entries of lists; what cannot be told apart is not divided."""

import re
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import BatchEncoding

from strategies import PlanError, compose
from strategies.execution.feed import map_tensors
from strategies.execution.rows import rows_of, take_rows


@dataclass
class Inputs:
    """A batch as a dataclass."""

    x: torch.Tensor
    names: list[str]


def zeros(*shape):
    return torch.zeros(*shape)


PICTURES = [zeros(3, 4, 6), zeros(3, 5, 6), zeros(3, 6, 6), zeros(3, 7, 6)]
BOXES = [{"boxes": zeros(count, 4)} for count in (1, 4, 2, 4)]


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        ({"a": zeros(7), "b": (zeros(7, 2), torch.tensor(3.0))}, 7),
        ([zeros(5, 2), zeros(5)], 5),
        (Inputs(zeros(4, 2), ["a", "b", "c", "d"]), 4),
        ({"pixels": zeros(4, 3, 2, 2), "labels": BOXES}, 4),
        ({"pixels": PICTURES, "labels": BOXES}, 4),
        ((tuple(PICTURES), tuple(BOXES)), 4),
        (BOXES, 4),
        ({"inputs": (zeros(6, 2), zeros(6, 3, 2))}, 6),
        ({"levels": [zeros(4, 2, 2), zeros(4, 1, 1)], "y": zeros(4)}, 4),
        ({"x": zeros(4, 2), "size": (2, 2), "scale": 3.0}, 4),
        ({"texts": ["a", "b", "c"]}, 3),
    ],
)
def test_examples_are_counted_and_taken(batch, size):
    assert rows_of(batch).size == size
    assert rows_of(batch).problem is None
    part = take_rows(batch, size, [2, 0])
    assert rows_of(part).size == 2
    assert type(part) is type(batch)
    assert rows_of(take_rows(batch, size, range(size))).size == size


def test_entries_go_with_their_rows():
    part = take_rows({"x": torch.arange(4), "labels": BOXES, "names": list("abcd"), "size": (2, 2)}, 4, [3, 0])
    assert part["x"].tolist() == [3, 0]
    assert [len(entry["boxes"]) for entry in part["labels"]] == [4, 1]
    assert (part["names"], part["size"]) == (["d", "a"], (2, 2))


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        ({"x": zeros(30, 5), "edges": zeros(2, 50), "y": zeros(4)}, "2 and 4 and 30 rows"),
        ({"x": zeros(2, 5), "pair": [zeros(2, 3), zeros(2, 3)]}, "may hold examples or fields"),
        ({"pictures": [zeros(3, 4, 4), zeros(3, 4, 4)]}, "without a number of rows"),
        ({"x": zeros(4, 4).to_sparse(), "y": zeros(4)}, "sparse"),
        (object(), "without a number of rows"),
    ],
)
def test_what_is_unclear_is_not_divided(batch, words):
    rows = rows_of(batch)
    assert words in rows.problem
    assert rows.size > 1, "whoever divides it is told"


class Graphs(nn.Module):
    """Scores of graphs: nodes pass on what they know along edges, and are added up."""

    def __init__(self):
        super().__init__()
        self.first, self.passing, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, batch):
        nodes = self.first(batch["nodes"])
        start, end = batch["edges"]
        nodes = torch.relu(nodes.index_add(0, end, self.passing(nodes)[start]))
        return self.head(torch.zeros(4, 8).index_add(0, batch["graph"], nodes))


def graphs():
    edges = torch.randint(0, 30, (2, 50))
    return {"nodes": torch.randn(30, 5), "edges": edges, "graph": torch.arange(30) % 4, "y": torch.arange(4) % 3}


def each(model, batch):
    return cross_entropy(model(batch), batch["y"], reduction="none")


@pytest.mark.parametrize("loss_fn", [each, lambda model, batch: each(model, batch).mean()])
@pytest.mark.parametrize("plan", ["full", "lora", "auto_batch"])
def test_a_batch_without_shared_rows_passes_whole(plan, loss_fn):
    tuned, batch = compose(plan).apply(Graphs(), total_steps=9), graphs()
    losses = [tuned.step(loss_fn, batch).item() for _ in range(9)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("plan", ["accumulate(n=2)", "auto_batch(start=3)", "selective_backprop(start=0.0)"])
def test_and_is_refused_where_it_would_be_divided(plan):
    tuned = compose(plan).apply(Graphs(), total_steps=9)
    with pytest.raises(PlanError, match=r"2 and 4 and 30 rows.*tuned\.loader.*leave out") as raised:
        tuned.step(each, graphs())
    assert "\n" not in str(raised.value)


def test_rows_that_are_no_examples_are_refused_when_a_part_fails():
    """One graph as a dense matrix: its rows are nodes, which do not pass alone."""
    model = nn.Sequential(nn.Linear(5, 8), nn.Linear(8, 3))
    batch = {"matrix": torch.rand(6, 6), "x": torch.randn(6, 5), "y": torch.arange(6) % 3}

    def loss_fn(model, batch):
        return cross_entropy(model(batch["matrix"] @ batch["x"]), batch["y"])

    compose("full").apply(model).step(loss_fn, batch)
    with pytest.raises(PlanError, match=re.escape("loss_fn fails on 3 of the batch's 6 rows (RuntimeError: ")):
        compose("accumulate(n=2)").apply(model).step(loss_fn, batch)


class Detector(nn.Module):
    """One box for each picture, of whatever size."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, pictures):
        return torch.stack([self.head(self.body(picture).mean((1, 2))) for picture in pictures])


def detections():
    generator = torch.Generator().manual_seed(3)
    pictures = [torch.randn(3, 4 + place, 6, generator=generator) for place in range(5)]
    return {
        "pictures": pictures,
        "labels": [{"boxes": torch.rand(1 + n % 3, 4, generator=generator)} for n in range(5)],
    }


def distances(model, batch):
    found = zip(model(batch["pictures"]), batch["labels"], strict=True)
    return [(box - labels["boxes"]).abs().sum(1) for box, labels in found]


@pytest.mark.parametrize("n", [2, 3, 4])
@pytest.mark.parametrize(
    "loss_fn",
    [
        lambda model, batch: torch.stack([distance.mean() for distance in distances(model, batch)]),
        lambda model, batch: torch.cat(distances(model, batch)).mean(),
    ],
    ids=["by picture", "by box"],
)
def test_targets_in_lists_are_divided_with_their_pictures(n, loss_fn):
    def update(text):
        torch.manual_seed(0)
        tuned = compose(f"{text}+clip(norm=None)").apply(Detector())
        seen = []
        tuned.optimizer.register_step_pre_hook(lambda *_: seen.extend(p.grad.clone() for p in tuned.model.parameters()))
        return tuned.step(loss_fn, detections()).item(), seen

    loss, expected = update("full")
    again, found = update(f"accumulate(n={n})")
    assert again == pytest.approx(loss, rel=1e-5)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(found, expected, strict=True))


class Attributes(dict):
    """Entries are attributes, too, as in many people's code."""

    def __init__(self, **entries):
        super().__init__(entries)
        self.__dict__ = self


class Looked(dict):
    def __getattr__(self, name):
        return self[name]


@pytest.mark.parametrize("kind", [Attributes, Looked, lambda **entries: BatchEncoding(entries)])
def test_a_mapping_stays_of_its_kind(kind):
    batch = kind(x=torch.arange(4), other={"y": torch.arange(4) + 1})
    for made, expected in (
        (take_rows(batch, 4, [1, 3]), torch.tensor([1, 3])),
        (map_tensors(batch, lambda tensor: tensor + 10), torch.arange(4) + 10),
    ):
        assert type(made) is type(batch)
        assert torch.equal(made.x, expected)
        assert torch.equal(made["x"], expected)
        assert len(made["other"]["y"]) == len(expected)
    assert torch.equal(batch.x, torch.arange(4))
