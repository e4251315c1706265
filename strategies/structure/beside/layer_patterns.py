"""Ranks and scales that differ from layer to layer: `rank_pattern` and `alpha_pattern`, as in PEFT.

A key is a regular expression that fits the end of a layer's name, of which an ending is the usual one. PEFT takes the
first key that fits; here the order says nothing, so keys that disagree about a layer are refused.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from strategies.errors import PlanError, closest_first
from strategies.structure.choice.requests import EXPRESSION

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from strategies.protocol import Strategy

PATTERNS = ("rank_pattern", "alpha_pattern")


def layer_values(strategy: Strategy, layers: Sequence[str]) -> dict[str, dict[str, int]]:
    """Give option → layer → value for the patterns that a strategy has; `layers` are all that get adapters.

    `PlanError` for a key that fits no layer, and for a layer that two keys give different values.
    """
    found: dict[str, dict[str, int]] = {}
    for option in [option for option in PATTERNS if vars(strategy).get(option)]:
        values = found.setdefault(option, {})
        for key, value in vars(strategy)[option].items():
            fitting = _fitting(strategy, option, key, layers)
            for name in fitting:
                if values.setdefault(name, value) != value:
                    raise PlanError(
                        f"{strategy.name}: {option} gives {name!r} both {values[name]} and {value}: write keys of "
                        "which one fits"
                    )
    return found


def _fitting(strategy: Strategy, option: str, key: str, layers: Iterable[str]) -> list[str]:
    """Give the layers whose names end as a key says."""
    try:
        pattern = re.compile(rf"(?:.*\.)?(?:{key.removeprefix(EXPRESSION)})")
    except re.error as problem:
        raise PlanError(f"{strategy.name}: {option} has {key!r}, which is no regular expression: {problem}") from None
    found = [name for name in layers if pattern.fullmatch(name)]
    if not found:
        there = closest_first(key, {name.rpartition(".")[2] for name in layers})
        raise PlanError(f"{strategy.name}: {option} has {key!r}, which is no layer with an adapter; those are: {there}")
    return found
