"""Which recipes of a sweep differ by one technique: a ladder up from the baseline, a recipe without each of its parts.

A recipe is the set of its members, options included; the baseline is the empty set. Nothing here knows a method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from report.frames.steps import members

if TYPE_CHECKING:
    from report.frames.compare import Comparison

Members = frozenset[str]
FEWEST_LEFT_OUT: Final = 2
PLAIN: Final[Members] = frozenset({"full"})


class Rung(NamedTuple):
    """An entry's label, and the member that it has more (or less) than the one it is compared with."""

    label: str
    member: str


def by_label(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """The entries as plain rows."""
    return {row["label"]: {str(key): v for key, v in row.items()} for row in comparison.entries.to_dict("records")}


def recipes(comparison: Comparison) -> dict[Members, str]:
    """Labels of the finished recipes by their members, in the table's order; the baseline has none."""
    entries = comparison.entries
    finished = entries[(entries["num_ok"] > 0) & (entries["kind"] != "control")]
    found: dict[Members, str] = {}
    for label, plan, kind in zip(finished["label"], finished["plan"], finished["kind"], strict=True):
        own = frozenset(members(plan))
        found.setdefault(frozenset() if kind == "baseline" or own == PLAIN else own, label)
    return found


def ladder(comparison: Comparison) -> list[Rung]:
    """The longest way up from the baseline by one member at a time, the first in the table's order; may be empty."""
    known = recipes(comparison)
    order = {label: place for place, label in enumerate(known.values())}
    best: dict[Members, list[Rung]] = {frozenset(): [Rung(known[frozenset()], "")]} if frozenset() in known else {}
    for own in sorted(known, key=len):  # stable: those of a size in the table's order
        ways = [(best[own - {member}], member) for member in sorted(own) if own - {member} in best]
        if ways and own:
            way, member = max(ways, key=lambda found: (len(found[0]), -order[found[0][-1].label]))
            best[own] = [*way, Rung(known[own], member)]
    return max(best.values(), key=len, default=[])


def left_out(comparison: Comparison) -> tuple[str, list[Rung]]:
    """The recipe that has been run without most of its members, and those runs; empty with fewer than two."""
    known = recipes(comparison)
    found = [
        (label, [Rung(known[own - {member}], member) for member in sorted(own) if own - {member} in known])
        for own, label in known.items()
        if len(own) >= FEWEST_LEFT_OUT
    ]
    whole, without = max(found, key=lambda pair: len(pair[1]), default=("", []))
    return (whole, without) if len(without) >= FEWEST_LEFT_OUT else ("", [])
