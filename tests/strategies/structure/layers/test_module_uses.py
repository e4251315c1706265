"""One reader of a model's source code serves both who put adapters around layers and who store them in few bits."""

import gc
import weakref

import pytest
import torch
from torch import nn
from torch.nn.functional import linear

from strategies.structure.choice.direct_reads import direct_reads
from strategies.structure.layers import module_uses
from strategies.structure.layers.weight_reads import weight_reads


class Four(nn.Module):
    def __init__(self, *, fast=False):
        super().__init__()
        self.fast = fast
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)
        self.row = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))


def by_text(self, x):
    return linear(x, getattr(self, "a").weight)  # noqa: B009


def in_pairs(self, x):
    for name, layer in (("a", self.a), ("row", self.row[0])):
        x = linear(x, layer.weight) if name else x
    return x


def at_once(self, x):
    first, second = self.a, self.b
    return second(linear(x, first.weight))


def anew(self, x):
    layer = self.a
    x = linear(x, layer.weight)
    layer = self.b
    return layer(x)


def either(self, x):
    layer = self.a if len(x) else self.b
    return linear(x, layer.weight)


def unpacked(self, x):
    first, second = self.row
    return linear(linear(x, first.weight), second.weight)


def sliced(self, x):
    for _, layer in enumerate(reversed(self.row[:1])):
        x = linear(x, layer.weight)
    return x


def annotated(self, x):
    weight: torch.Tensor = self.a.weight
    return linear(x, weight)


def partly_decided(self, x):
    return linear(x, self.a.weight) if self.fast and x is not None else self.b(x)


def not_decided(self, x):
    return linear(x, self.a.weight) if not self.fast or x is None else self.b(x)


class Statics(Four):
    @staticmethod
    def cut(a, size):
        return a.weight[:size], a.b.weight

    def forward(self, x):
        return self.a(x) if x is None else self.cut(x, 2)


@pytest.mark.parametrize(
    ("way", "read"),
    [
        (by_text, {"a"}),
        (in_pairs, {"a", "row.0"}),
        (at_once, {"a"}),
        (anew, {"a"}),
        (either, {"a", "b"}),
        (unpacked, {"row.0", "row.1"}),
        (sliced, {"row.0", "row.1"}),
        (annotated, {"a"}),
        (partly_decided, set()),
        (not_decided, {"a"}),
    ],
)
def test_both_users_see_the_same_reads(way, read):
    model = type("Way", (Four,), {"forward": way})()
    assert {name for name, found in direct_reads(model).items() if found.kind == "uncalled"} == read
    assert weight_reads(model) == dict.fromkeys(read, "Way")


def test_the_first_argument_of_a_static_method_is_no_module():
    assert direct_reads(Statics()) == {}
    assert weight_reads(Statics()) == {}


class Embedding(Four):
    def forward(self, x):
        return self.b(x)

    def scores(self, x):
        return linear(x, self.a.weight)


class Outer(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = Embedding()

    def forward(self, x):
        return self.inner.scores(self.inner(x))


def test_a_method_that_another_module_calls_counts():
    assert direct_reads(Outer())["inner.a"] == ("uncalled", "Embedding.scores")
    assert direct_reads(Embedding()) == {}


def test_a_class_is_read_once_and_let_go(monkeypatch):
    model = type("Once", (Four,), {"forward": at_once})()
    counted = []
    read = module_uses.uses_of
    monkeypatch.setattr(module_uses, "uses_of", lambda method: counted.append(method.__name__) or read(method))
    for _ in range(2):
        direct_reads(model)
        weight_reads(model)
    assert counted.count("at_once") == 1
    counted.clear()
    kind = weakref.ref(type(model))
    del model
    gc.collect()
    assert kind() is None
