"""What a plan's members leave undecided in the towers of a model, and which of it is frozen.

What no member names trains whole, at the rate of `full`: another tower, another child of a model that names no towers.
But where a member adapts a part of one, the rest of the tower is frozen: who asks for adapters on some layers does not
ask for the others to train whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from strategies.language.rates import weights_members
from strategies.layout import is_within
from strategies.protocol import FROZEN, FROZEN_BASE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from strategies.layout import Layout
    from strategies.protocol import Strategy


class Rest(NamedTuple):
    """Names of what is frozen although no member's scope holds it."""

    parameters: frozenset[str]
    modules: frozenset[str]


def frozen_rest(model: nn.Module, layout: Layout, members: Sequence[Strategy]) -> Rest:
    """Name what lies in a tower that a member adapts in part, and in no member's scope."""
    weights = weights_members(members)
    decided = [layout.parameter_names(model, member.scope_name()) for member in weights]
    adapted = frozenset().union(*(names for names, member in zip(decided, weights, strict=True) if _adapts(member)))
    parameters: set[str] = set()
    modules: set[str] = set()
    for tower, roots in layout.towers.items():
        rest = layout.parameter_names(model, tower).difference(*decided)
        if any(_holds(rest, root) and _holds(adapted, root) for root in roots):
            parameters |= rest
            scopes = [layout.module_names(model, member.scope_name()) for member in weights]
            modules |= layout.module_names(model, tower).difference(*scopes)
    return Rest(frozenset(parameters), frozenset(modules))


def with_frozen_base(model: nn.Module, layout: Layout, members: Sequence[Strategy]) -> frozenset[str]:
    """Name the parameters of new parts and of what is trained over a frozen base: those that are kept in 32 bits."""
    scopes = [member.scope_name() for member in weights_members(members) if _adapts(member)]
    new = frozenset(name for name, _ in model.named_parameters() if layout.is_new(name))
    rest = frozen_rest(model, layout, members).parameters  # of which modules that train whole are a part
    return new.union(rest, *(layout.parameter_names(model, scope) for scope in scopes))


def _adapts(member: Strategy) -> bool:
    """Say whether a member trains something small over a frozen base."""
    return FROZEN_BASE in member.capabilities() and FROZEN not in member.capabilities()


def _holds(names: frozenset[str], root: str) -> bool:
    return any(is_within(name, (root,)) for name in names)
