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
from strategies.language.coverage import frozen_rest
from strategies.language.rates import head_lrs, weights_members
from strategies.layout import is_within, surely_contains, surely_disjoint
from strategies.protocol import FROZEN, FROZEN_BASE, WEIGHTS
from strategies.structure.beside.token_rows import token_rows
from strategies.structure.beside.trained_whole import trained_whole

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
    """Why a plan cannot run: `reason`, a line for people, and its `kind`.

    "slot": two members decide the same; "capability": a member lacks what it requires, or would do nothing; "conflict":
    a pair that is known to fail; "scope": names that match nothing in the model; "unavailable": device, package or data
    lack what a member needs.
    """

    kind: Literal["slot", "capability", "conflict", "scope", "unavailable"]
    reason: str


class ScopedMember(NamedTuple):
    """A member and the parameters in its scope; `None` without a model."""

    member: Strategy
    parameters: frozenset[str] | None


def find_problems(
    members: Sequence[Strategy], device: torch.device | str, model: nn.Module | None, layout: Layout | None
) -> tuple[Problem, ...]:
    """Give all problems of a plan on a device, and on a model where there is one."""
    found: list[Problem] = []
    scoped_members: list[ScopedMember] = []
    for member in members:
        reason = member.unavailable(device)
        if reason:
            found.append(Problem("unavailable", f"{member.name}: {reason}"))
        try:
            owned = None if model is None or layout is None else layout.parameter_names(model, member.scope_name())
        except PlanError as problem:
            found.append(Problem("scope", f"{member.name}: {problem}"))
        else:
            scoped_members.append(ScopedMember(member, owned))
    found += _slots(scoped_members)
    lost = any(problem.kind == "scope" for problem in found)
    known = None if model is None or layout is None or lost else frozen_rest(model, layout, members).parameters
    if model is not None and layout is not None and not lost:
        found += _beside_adapters(scoped_members, model, layout)
    found += _capabilities(scoped_members, known or frozenset())
    found += _conflicts(scoped_members, device)
    rates = head_lrs(weights_members(members))
    if len(rates) > 1:
        found.append(Problem("slot", f"the head can have one rate only, not {' and '.join(map(str, rates))}"))
    return tuple(found)


def _beside_adapters(scoped_members: Sequence[ScopedMember], model: nn.Module, layout: Layout) -> Iterator[Problem]:
    """Give what a member trains beside its adapters that lies in another's scope, which says something else of it."""
    weights = [scoped for scoped in scoped_members if WEIGHTS in scoped.member.slots]
    for one, other in permutations(weights, 2):
        try:
            named = dict.fromkeys(trained_whole(one.member, model, layout), "modules_to_save")
            named |= dict.fromkeys(token_rows(one.member, model, layout), "trainable_token_indices")
        except PlanError:  # a name that means nothing, which is refused where it is used
            continue
        for name, option in named.items():
            if any(is_within(parameter, (name,)) for parameter in other.parameters or ()):
                where = f"{other.member.name}(scope={other.member.scope_name()!r})"
                yield Problem(
                    "slot",
                    f"{one.member.name}: {option} would train {name!r}, which is {where}'s: leave it out of one",
                )


def _slots(scoped_members: Sequence[ScopedMember]) -> Iterator[Problem]:
    """Two members may share a slot only on disjoint scopes."""
    for one, other in combinations(scoped_members, 2):
        for slot in sorted(one.member.slots & other.member.slots):
            if _overlap(one, other):
                pair = " and ".join(f"{scoped.member.name}{_scope_text(scoped.member)}" for scoped in (one, other))
                yield Problem("slot", f"{pair} both decide {slot!r}; {_slot_advice(one.member, other.member)}")


def _slot_advice(one: Strategy, other: Strategy) -> str:
    """Say what to do about two members of one slot."""
    for rest, adapter in ((one, other), (other, one)):
        if FROZEN in rest.capabilities() and adapter.capabilities() == {FROZEN_BASE}:
            return f"{adapter.name} freezes the base already: leave {rest.name} out, or give them disjoint scopes"
    return "choose one, or give them disjoint scopes"


def _capabilities(scoped_members: Sequence[ScopedMember], rest: frozenset[str]) -> Iterator[Problem]:
    """What a member requires must hold in its whole scope; what makes it inert or wrong must not.

    `rest` is frozen beside what members adapt.
    """
    for scoped in scoped_members:
        name = f"{scoped.member.name}{_scope_text(scoped.member)}"
        for required in sorted(scoped.member.requires):
            providers = [other for other in scoped_members if required in other.member.capabilities()]
            if not _possibly_covered(scoped, providers, rest if required == FROZEN_BASE else frozenset()):
                source = OFFERED_BY.get(required, "another strategy")
                example = source.partition(" ")[0]
                yield Problem(
                    "capability",
                    f"{name} needs {required} in its whole scope, which {source} gives: "
                    f"write {scoped.member.name}+{example}",
                )
        for capability in sorted(scoped.member.inert_on):
            if _surely_covered(
                scoped, [other for other in scoped_members if capability in other.member.capabilities()]
            ):
                yield Problem("capability", f"{name} would do nothing: {capability} in its scope")
        for other in scoped_members:
            for capability in sorted(scoped.member.incompatible_with & other.member.capabilities()):
                if _overlap(scoped, other):
                    reason = f"{name} cannot be with {capability} in its scope: leave {other.member.name} out there"
                    yield Problem("capability", reason)


def _conflicts(scoped_members: Sequence[ScopedMember], device: torch.device | str) -> Iterator[Problem]:
    """Known failing pairs, where they meet."""
    kind = str(device).partition(":")[0]
    for one, other in permutations(scoped_members, 2):
        for conflict in CONFLICTS:
            names = one.member.name == conflict.one and other.member.name in conflict.others
            if names and conflict.device in {None, kind} and _overlap(one, other):
                reason = f"{one.member.name} and {other.member.name}: {conflict.reason} ({conflict.link})"
                yield Problem("conflict", reason)


def _overlap(one: ScopedMember, other: ScopedMember) -> bool:
    if one.parameters is None or other.parameters is None:
        first, second = one.member.scope_name(), other.member.scope_name()
        return surely_contains(first, second) or surely_contains(second, first)
    return bool(one.parameters & other.parameters)


def _possibly_covered(scoped: ScopedMember, providers: Sequence[ScopedMember], rest: frozenset[str]) -> bool:
    if scoped.parameters is None:
        return any(not surely_disjoint(other.member.scope_name(), scoped.member.scope_name()) for other in providers)
    return scoped.parameters <= rest.union(*(other.parameters or frozenset() for other in providers))


def _surely_covered(scoped: ScopedMember, providers: Sequence[ScopedMember]) -> bool:
    if scoped.parameters is None:
        return any(surely_contains(other.member.scope_name(), scoped.member.scope_name()) for other in providers)
    return bool(providers) and scoped.parameters <= frozenset().union(
        *(other.parameters or frozenset() for other in providers)
    )


def _scope_text(member: Strategy) -> str:
    scope = member.scope_name()
    return f"(scope={scope!r})" if scope not in {None, "*"} else ""
