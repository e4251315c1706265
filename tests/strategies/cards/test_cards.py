"""Method cards say what a reader needs, recipes and presets name what exists, types check options."""

import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as draw

from strategies import PlanError, catalogue, parse_plans, recipes
from strategies.cards.book import cardbook, example
from strategies.cards.card import card
from strategies.language.parse import build
from strategies.language.presets import PRESETS
from strategies.options import Count, Natural, Options, Rate, Share, conform, describe_type
from strategies.protocol import defaults

PARTS = ("What:", "Why it helps:", "What it costs:", "When not to use it:", "Paper:")


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_a_card_says_what_why_cost_and_when_not(name):
    shown = card(catalogue()[name])
    words = " ".join(shown["text"].split())
    places = [words.find(part) for part in PARTS]
    assert -1 not in places, PARTS[places.index(-1)]
    assert places == sorted(places)
    assert words.startswith(f"{name} — ")
    assert 20 < len(shown["summary"]) < 110
    assert shown["papers"]


def test_the_page_of_cards_is_generated(root):
    assert (root / "docs" / "strategies.md").read_text() == cardbook() + "\n", "run `make docs`"


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_the_example_on_a_card_can_be_typed(name):
    (named,) = parse_plans(example(catalogue()[name]))
    assert name in {member.name for member in named.plan.members} or name == "full"
    assert [problem.reason for problem in named.plan.problems("cpu") if problem.kind != "unavailable"] == []


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_options_are_documented_by_their_types_and_defaults(name):
    strategy = catalogue()[name]
    assert strategy.kind in {"weights", "numerics", "memory", "speed", "update", "data"}
    assert strategy.stage in range(10, 80, 5)
    assert dataclasses.is_dataclass(strategy)
    rates = {option for option in defaults(strategy) if option in {"lr", "head_lr"}}
    assert ("head_lr" in rates) == (strategy.kind == "weights")
    for rate in rates:
        with pytest.raises(PlanError, match="positive"):
            build(strategy, {**strategy.trial, rate: -1.0})


@pytest.mark.parametrize("name", sorted(catalogue()))
def test_its_options_can_be_declared_on_python_3_10(name):
    """Later Pythons look whether a default can be hashed, 3.10 whether it is a list, a dictionary or a set."""
    for option in dataclasses.fields(catalogue()[name]):
        assert not isinstance(option.default, (list, dict, set)), option.name


def test_recipes_and_presets_name_what_exists():
    for name, (text, why) in recipes().items():
        assert parse_plans(name)[0].plan == parse_plans(text)[0].plan
        assert len(why) > 30
    for preset in PRESETS.values():
        assert len(parse_plans(preset.plans)) >= 6
        assert preset.seeds


def test_each_rung_of_the_ladder_keeps_what_is_below_it():
    rungs = [set(named.plan.members) for named in parse_plans(PRESETS["ladder"].plans)]
    assert [len(rung) for rung in rungs] == list(range(len(rungs)))
    assert all(below < above for below, above in pairwise(rungs))


@given(value=draw.one_of(draw.integers(), draw.floats(), draw.text(), draw.none(), draw.booleans()))
def test_what_conforms_lies_in_the_range(value):
    for hint, kind, holds in (
        (Count, int, lambda v: v >= 1),
        (Natural, int, lambda v: v >= 0),
        (Rate, float, lambda v: 0 < v < float("inf")),
        (Share, float, lambda v: 0 <= v < 1),
    ):
        fits, kept = conform(value, hint)
        number = isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
        assert fits == bool(number and holds(value))
        if fits:
            assert type(kept) is kind
            assert kept == kind(value)
            assert conform(kept, hint) == (True, kept)


def test_unions_choices_and_dictionaries():
    assert conform(None, Rate | None) == (True, None)
    assert conform(["b", "a", "b"], tuple[str, ...]) == (True, ("a", "b"))
    assert conform([], tuple[str, ...])[0] is False
    fits, kept = conform({"r": 8, "a": [1]}, Options)
    assert fits
    assert list(kept) == ["a", "r"]
    assert hash(kept) == hash(Options({"a": [1], "r": 8}))
    assert describe_type(Rate | None) == "float (positive) or None"
    with pytest.raises(PlanError, match="needs type="):
        build(catalogue()["peft"], {})
