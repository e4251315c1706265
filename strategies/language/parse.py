"""From words to strategies: `lora(r=8)+amp` becomes the strategies it names, with their options.

Named recipes are expanded first, so an alias and its expansion are the same. Unknown words and values name the known
ones, closest first, and all that is wrong is reported at once.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError, closest_first
from strategies.language.catalogue import catalogue
from strategies.language.grammar import Call, parse_combinations
from strategies.language.recipes import RECIPES
from strategies.protocol import Strategy, defaults

if TYPE_CHECKING:
    from collections.abc import Mapping


def parse_members(text: str) -> list[tuple[str, list[Strategy]]]:
    """Read a comma-separated list of sums; give each as it was written, with its strategies.

    `PlanError` with a line for each word or value that is unknown.
    """
    found: list[tuple[str, list[Strategy]]] = []
    wrong: list[str] = []
    for entry, calls in parse_combinations(text):
        members: list[Strategy] = []
        for call in calls:
            try:
                members += expand(call)
            except PlanError as problem:
                wrong.append(str(problem))
        found.append((entry, members))
    if wrong:
        raise PlanError("\n".join(dict.fromkeys(wrong)))
    return found


def expand(call: Call) -> list[Strategy]:
    """Turn a word into strategies: one, or a recipe's."""
    if call.name in RECIPES:
        if call.arguments:
            raise PlanError(
                f"{call.name} takes no options, it is short for {RECIPES[call.name][0]}: write that sum and give its "
                "members options, as in lora(r=4)"
            )
        return [
            part for _, calls in parse_combinations(RECIPES[call.name][0]) for inner in calls for part in expand(inner)
        ]
    known = catalogue()
    if call.name not in known:
        raise PlanError(f"unknown strategy {call.name!r}; there is: {closest_first(call.name, [*known, *RECIPES])}")
    return [build(known[call.name], call.arguments)]


def build(strategy: type[Strategy], arguments: Mapping[str, Any]) -> Strategy:
    """Make a strategy from typed words; unknown options name the known ones, closest first."""
    known = [option.name for option in dataclasses.fields(strategy)]
    problems = [
        f"{strategy.name} has no option {word!r}; it has: {closest_first(word, known)}"
        for word in arguments
        if word not in known
    ]
    problems += [
        f"{strategy.name} needs {option}=… (`run_matrix.py list {strategy.name}` says which there are)"
        for option, default in defaults(strategy).items()
        if default is dataclasses.MISSING and option not in arguments
    ]
    if problems:
        raise PlanError("; ".join(problems))
    return strategy(**arguments)
