"""Everything that is wrong with a plan, all at once: slots, capabilities, conflicts, scopes, availability.

Without a model, scopes are compared by name and only what is certain is reported; with one (also on `meta`), by
the sets of parameters they own.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Literal, NamedTuple

from strategies.errors import PlanError
from strategies.language.conflicts import CONFLICTS
from strategies.language.rates import head_rates, weights_members
from strategies.layout import surely_contains, surely_disjoint
from strategies.protocol import FROZEN, FROZEN_BASE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from torch import nn

    from strategies.layout import Layout
    from strategies.protocol import Strategy

# Capability → sums that offer it, for the message.
OFFERED_BY = {FROZEN_BASE: "lora or freeze", FROZEN: "freeze (of the same scope)"}


@dataclass(frozen=True)
class Problem:
    """Why a plan cannot run."""

    kind: Literal["slot", "capability", "conflict", "scope", "unavailable"]
    reason: str


class Reach(NamedTuple):
    """A member and the parameters in its scope; `None` without a model."""

    member: Strategy
    owned: frozenset[str] | None


def find_problems(
    members: Sequence[Strategy], device: torch.device | str, model: nn.Module | None, layout: Layout | None
) -> tuple[Problem, ...]:
    """Give all problems of a plan on a device, and on a model where there is one."""
    found: list[Problem] = []
    reaches: list[Reach] = []
    for member in members:
        reason = member.unavailable(device)
        if reason:
            found.append(Problem("unavailable", f"{member.name}: {reason}"))
        try:
            owned = None if model is None or layout is None else layout.owned(model, member.where())
        except PlanError as problem:
            found.append(Problem("scope", f"{member.name}: {problem}"))
        else:
            reaches.append(Reach(member, owned))
    found += _slots(reaches)
    found += _capabilities(reaches)
    found += _conflicts(reaches, device)
    rates = head_rates(weights_members(members))
    if len(rates) > 1:
        found.append(Problem("slot", f"the head can have one rate only, not {' and '.join(map(str, rates))}"))
    return tuple(found)


def _slots(reaches: Sequence[Reach]) -> Iterator[Problem]:
    """Two members may share a slot only on disjoint scopes."""
    for one, other in combinations(reaches, 2):
        for slot in sorted(one.member.slots & other.member.slots):
            if _overlap(one, other):
                pair = " and ".join(f"{reach.member.name}{_on(reach.member)}" for reach in (one, other))
                yield Problem("slot", f"{pair} both decide {slot!r}; {_advice(one.member, other.member)}")


def _advice(one: Strategy, other: Strategy) -> str:
    """Say what to do about two members of one slot."""
    for rest, adapter in ((one, other), (other, one)):
        if FROZEN in rest.capabilities() and adapter.capabilities() == {FROZEN_BASE}:
            return f"{adapter.name} freezes the base already: leave {rest.name} out, or give them disjoint scopes"
    return "choose one, or give them disjoint scopes"


def _capabilities(reaches: Sequence[Reach]) -> Iterator[Problem]:
    """What a member requires must hold in its whole scope; what makes it inert or wrong must not."""
    for reach in reaches:
        name = f"{reach.member.name}{_on(reach.member)}"
        for wanted in sorted(reach.member.requires):
            if not _possibly_covered(reach, [other for other in reaches if wanted in other.member.capabilities()]):
                source = OFFERED_BY.get(wanted, "another strategy")
                example = source.partition(" ")[0]
                yield Problem(
                    "capability",
                    f"{name} needs {wanted} in its whole scope, which {source} gives: "
                    f"write {reach.member.name}+{example}",
                )
        for spoiling in sorted(reach.member.inert_on):
            if _surely_covered(reach, [other for other in reaches if spoiling in other.member.capabilities()]):
                yield Problem("capability", f"{name} would do nothing: {spoiling} in its scope")
        for other in reaches:
            for spoiling in sorted(reach.member.spoiled_by & other.member.capabilities()):
                if _overlap(reach, other):
                    reason = f"{name} cannot be with {spoiling} in its scope: leave {other.member.name} out there"
                    yield Problem("capability", reason)


def _conflicts(reaches: Sequence[Reach], device: torch.device | str) -> Iterator[Problem]:
    """Known failing pairs, where they meet."""
    kind = str(device).partition(":")[0]
    for one, other in permutations(reaches, 2):
        for conflict in CONFLICTS:
            names = one.member.name == conflict.one and other.member.name in conflict.others
            if names and conflict.device in {None, kind} and _overlap(one, other):
                reason = f"{one.member.name} and {other.member.name}: {conflict.reason} ({conflict.link})"
                yield Problem("conflict", reason)


def _overlap(one: Reach, other: Reach) -> bool:
    if one.owned is None or other.owned is None:
        first, second = one.member.where(), other.member.where()
        return surely_contains(first, second) or surely_contains(second, first)
    return bool(one.owned & other.owned)


def _possibly_covered(reach: Reach, providers: Sequence[Reach]) -> bool:
    if reach.owned is None:
        return any(not surely_disjoint(other.member.where(), reach.member.where()) for other in providers)
    return reach.owned <= frozenset().union(*(other.owned or frozenset() for other in providers))


def _surely_covered(reach: Reach, providers: Sequence[Reach]) -> bool:
    if reach.owned is None:
        return any(surely_contains(other.member.where(), reach.member.where()) for other in providers)
    return bool(providers) and reach.owned <= frozenset().union(*(other.owned or frozenset() for other in providers))


def _on(member: Strategy) -> str:
    where = member.where()
    return f"(scope={where!r})" if where not in {None, "*"} else ""
