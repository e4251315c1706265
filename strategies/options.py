"""What an option of a strategy may be: annotated types, checked when a strategy is made.

A field says its range in its type (`lr: Rate`, `r: Count`, `mode: Literal["a", "b"]`), so that no strategy needs code
to refuse nonsense. `conform` also does what a command line wants: ints become floats, lists become sorted tuples,
dicts become hashable.
"""

from __future__ import annotations

import math
import types
import typing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Range:
    """A range of numbers in words, and its test."""

    description: str
    contains: Callable[[Any], bool]


Rate = Annotated[float, Range("positive", lambda value: value > 0)]
Count = Annotated[int, Range("1 or more", lambda value: value >= 1)]
Natural = Annotated[int, Range("0 or more", lambda value: value >= 0)]
Share = Annotated[float, Range("in [0, 1)", lambda value: 0 <= value < 1)]
NonNegative = Annotated[float, Range("0 or more", lambda value: value >= 0)]
Names = tuple[str, ...]
Numbers = tuple[Natural, ...]
ADDED = "added after 0.1.0"


class Options(dict[str, Any]):
    """A dictionary of plain values that never changes, so that it can be part of a strategy."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(repr(sorted(self.items())))


def _are_counts(values: Any) -> bool:
    return bool(values) and all(type(value) is int and value >= 1 for value in values.values())


def _are_rows(values: Any) -> bool:
    return bool(values) and all(
        isinstance(rows, list | tuple) and rows and all(type(row) is int and row >= 0 for row in rows)
        for rows in values.values()
    )


Counts = Annotated[Options, Range("a number, 1 or more, for each name", _are_counts)]
Rows = Annotated[Options, Range("a list of numbers, 0 or more, for each name", _are_rows)]


def added(default: Any) -> Any:
    """Declare an option that came after 0.1.0: it enters a run's id only where it differs from its default."""
    return field(default=default, metadata={ADDED: True})


def following(strategy: Any) -> dict[str, Any]:
    """Give option → what it comes to unless given, for the options of a strategy that follow another one."""
    return {option: times * getattr(strategy, other) for option, (other, times) in strategy.follows.items()}


def conform(value: object, hint: Any) -> tuple[bool, Any]:
    """Say whether `value` fits the type `hint`, and give it in the form that is kept."""
    for choice in _alternatives(hint):
        fits, kept = _conform_one(value, choice)
        if fits:
            return True, kept
    return False, None


def describe_type(hint: Any) -> str:
    """Give a type in words: `int, 1 or more, or None`."""
    words = [_type_text(choice) for choice in _alternatives(hint)]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return typing.get_args(hint) if typing.get_origin(hint) in {types.UnionType, typing.Union} else (hint,)


def _conform_one(value: object, hint: Any) -> tuple[bool, Any]:
    """Check against one type that is no union."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        fits, kept = _conform_one(value, arguments[0])
        return fits and arguments[1].contains(kept), kept
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments), value
    if origin is tuple:
        fits = (
            isinstance(value, list | tuple)
            and bool(value)
            and all(_conform_one(part, arguments[0])[0] for part in value)
        )
        return fits, tuple(sorted(set(typing.cast("tuple[str, ...]", value)))) if fits else None
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return math.isfinite(value), float(value)
    if hint is Options and isinstance(value, dict):
        plain = {key: list(part) if isinstance(part, tuple) else part for key, part in value.items()}
        return all(isinstance(key, str) for key in value), Options(sorted(plain.items()))
    return isinstance(value, hint) and not (hint is int and isinstance(value, bool)), value


def _type_text(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return f"{_type_text(arguments[0])} ({arguments[1].description})"
    if origin is Literal:
        return "one of " + ", ".join(map(repr, arguments))
    if origin is tuple:
        each = _type_text(arguments[0])
        return "a list of names" if arguments[0] is str else _list_text(each)
    if hint is Options:
        return "a dictionary such as {'r': 8}"
    return str(getattr(hint, "__name__", hint)).replace("NoneType", "None")


def _list_text(each: str) -> str:
    return each.replace("one of", "a list from") if each.startswith("one of") else f"a list of {each}"
