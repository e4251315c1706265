"""What an option that names modules means: endings, regular expressions, and dictionaries of them.

`target_modules`, `exclude_modules` and `modules_to_save` hold endings of names (`q_proj`, `0.attn`) or, written `re:…`,
regular expressions that fit a whole name. The keys of `rank_pattern` and `alpha_pattern` are PEFT's: regular
expressions that fit the end of a name. Everything that is asked for must be there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError, closest_first

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from strategies.protocol import Strategy

EXPRESSION = "re:"
PATTERNS = ("rank_pattern", "alpha_pattern")


def fits(entry: str, name: str) -> bool:
    """Say whether an entry means the module called `name`."""
    if entry.startswith(EXPRESSION):
        return _expression(entry, entry.removeprefix(EXPRESSION)).fullmatch(name) is not None
    return name == entry or name.endswith(f".{entry}")


def named(strategy: Strategy, option: str, entries: Iterable[str], names: Sequence[str]) -> list[str]:
    """Give those of `names` that the entries mean; `PlanError` for an entry that means none."""
    chosen: set[str] = set()
    for entry in entries:
        found = [name for name in names if fits(entry, name)]
        if not found:
            raise PlanError(
                f"{strategy.name}: {option} names {entry!r}, which is nothing there; there is: "
                f"{closest_first(entry.removeprefix(EXPRESSION), _endings(names))}"
            )
        chosen.update(found)
    return [name for name in names if name in chosen]


def layer_values(strategy: Strategy, layers: Sequence[str]) -> dict[str, dict[str, int]]:
    """Give option → layer → value for the patterns of a strategy; `layers` are the names of all that get adapters.

    `PlanError` for a key that fits no layer, and for a layer that two keys give different values.
    """
    found: dict[str, dict[str, int]] = {}
    for option in [option for option in PATTERNS if vars(strategy).get(option)]:
        pattern: dict[str, int] = vars(strategy)[option]
        values: dict[str, int] = {}
        for key, value in pattern.items():
            expression = _expression(key, rf"(?:.*\.)?(?:{key.removeprefix(EXPRESSION)})")
            fitting = [name for name in layers if expression.fullmatch(name)]
            if not fitting:
                raise PlanError(
                    f"{strategy.name}: {option} names {key!r}, which is no layer with an adapter; those are: "
                    f"{closest_first(key, _endings(layers))}"
                )
            for name in fitting:
                if values.setdefault(name, value) != value:
                    raise PlanError(
                        f"{strategy.name}: {option} gives {name!r} both {values[name]} and {value}: write keys of "
                        "which one fits"
                    )
        found[option] = values
    return found


def _expression(entry: str, text: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as problem:
        raise PlanError(f"{entry!r} is no regular expression ({problem})") from None


def _endings(names: Iterable[str]) -> Iterable[Any]:
    """Give names without numbers of blocks: their last parts."""
    return dict.fromkeys(part for name in names for part in (name.rpartition(".")[2], name))
