"""Which recipes of a sweep differ by one technique: a ladder up from the baseline, a recipe without each of its parts.

A recipe is the set of its members, options included; the baseline is the empty set. Nothing here knows a method.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from report.frames.steps import members

if TYPE_CHECKING:
    from report.frames.compare import Comparison

Members = frozenset[str]
MIN_LEFT_OUT: Final = 2
FULL_FINE_TUNING: Final[Members] = frozenset({"full"})


class AblationStep(NamedTuple):
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
        techniques = frozenset(members(plan))
        found.setdefault(frozenset() if kind == "baseline" or techniques == FULL_FINE_TUNING else techniques, label)
    return found


def cumulative_ablation(comparison: Comparison) -> list[AblationStep]:
    """The longest way up from the baseline by one member at a time, the first in the table's order; may be empty."""
    labels = recipes(comparison)
    order = {label: index for index, label in enumerate(labels.values())}
    best: dict[Members, list[AblationStep]] = (
        {frozenset(): [AblationStep(labels[frozenset()], "")]} if frozenset() in labels else {}
    )
    for techniques in sorted(labels, key=len):  # stable: those of a size in the table's order
        paths = [
            (best[techniques - {member}], member) for member in sorted(techniques) if techniques - {member} in best
        ]
        if paths and techniques:
            path, member = max(paths, key=lambda found: (len(found[0]), -order[found[0][-1].label]))
            best[techniques] = [*path, AblationStep(labels[techniques], member)]
    return max(best.values(), key=len, default=[])


def leave_one_out(comparison: Comparison) -> tuple[str, list[AblationStep]]:
    """The recipe that has been run without most of its members, and those runs; empty with fewer than two."""
    labels = recipes(comparison)
    found = [
        (
            label,
            [
                AblationStep(labels[techniques - {member}], member)
                for member in sorted(techniques)
                if techniques - {member} in labels
            ],
        )
        for techniques, label in labels.items()
        if len(techniques) >= MIN_LEFT_OUT
    ]
    whole, without = max(found, key=lambda pair: len(pair[1]), default=("", []))
    return (whole, without) if len(without) >= MIN_LEFT_OUT else ("", [])
