"""Where things are in a model: towers, fusion, head, and what a scope means.

A scope is a name from `model.scopes`, a module's name, or a glob over `named_modules`; `None` is everything but
what is new (fusion, head). Everything is kept as *names*, so that a layout survives surgery which replaces modules.
The first half of the file answers for a model, the second half compares scopes when there is no model yet. How a
layout is found: `strategies/structure/find_layout.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, TypeAlias

from strategies.errors import PlanError, closest_first

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

HeadChoice: TypeAlias = str | Sequence[str] | None  # "auto": found by rules; one or several names; `None`: nothing new
EVERYTHING = "*"  # the whole model, head and fusion included
BODY = "body"  # all that is pretrained, in a model that offers no scopes
NEW_PARTS = ("fusion", "head")  # trained from scratch: always train, with their own rate


@dataclass(frozen=True)
class Layout:
    """Names: `scopes` as offered or found, `new_parts` = what trains from scratch, fusion and head.

    `scopes["head"]` and `new_parts` hold modules and single parameters, and may be empty. `head_origin` says how the
    head was found. `left_out`: what no checkpoint had, and the caller does not call new. `divided`: the towers were
    found, not offered, and are the scope `body` together.
    """

    scopes: Mapping[str, tuple[str, ...]]
    new_parts: tuple[str, ...]
    head_origin: str
    left_out: tuple[str, ...] = ()
    divided: bool = False

    @property
    def towers(self) -> dict[str, tuple[str, ...]]:
        """Give the scopes that hold pretrained parts."""
        return {name: prefixes for name, prefixes in self.scopes.items() if name not in NEW_PARTS}

    def is_new(self, name: str) -> bool:
        """Say whether a parameter or module is new or lies in a new part."""
        return is_within(name, self.new_parts)

    def tied_head(self, model: nn.Module) -> str | None:
        """Name the parameter that a head without its own shares with a part before it, as in language models."""
        if self.owned("head", [name for name, _ in model.named_parameters()]):
            return None
        heads = (module for name, module in model.named_modules() if name in self.scopes["head"])
        used = {id(p) for module in heads for p in module.parameters()}
        return next((name for name, parameter in model.named_parameters() if id(parameter) in used), None)

    def groups(self, model: nn.Module, scope: str | None) -> dict[str, tuple[str, ...]]:
        """Resolve a scope to labelled groups of module names; a scope that matches nothing is an error.

        Repeated blocks in a group may hold new parts, which `parameter_names` and `module_names` leave out.
        """
        if scope is None or (scope == BODY and self.divided):
            return self.towers
        if scope == EVERYTHING:
            return {EVERYTHING: ("",)}
        names = [name for name, _ in model.named_modules()]
        if scope in self.scopes:
            matches = [name for name in self.scopes[scope] if name in set(names)]
            if not matches and scope in NEW_PARTS:
                raise PlanError(f"scope {scope!r} holds no module of {type(model).__name__}: {self.head_origin}")
            return {scope: tuple(matches)}
        first, _, rest = scope.partition(".")
        patterns = [f"{root}.{rest}".lstrip(".") for root in self.scopes.get(first, ())] + [scope]
        matches = [name for name in names if name and any(fnmatchcase(name, pattern) for pattern in patterns)]
        if not matches:
            known = [*self.scopes, *(name for name in names if name and name.count(".") <= 1)]
            raise PlanError(
                f"scope {scope!r} matches nothing in {type(model).__name__}; there is: "
                f"{closest_first(scope, dict.fromkeys(known))}"
            )
        outermost = [name for name in matches if not is_within(name.rpartition(".")[0], tuple(matches))]
        return {scope: tuple(outermost)}

    def parameter_names(self, model: nn.Module, scope: str | None) -> frozenset[str]:
        """Give the names of the parameters in a scope, those of new parts only if the scope names them."""
        return self._within(model, scope, [name for name, _ in model.named_parameters()])

    def module_names(self, model: nn.Module, scope: str | None) -> frozenset[str]:
        """Give the names of the modules in a scope, those of new parts only if the scope names them."""
        return self._within(model, scope, [name for name, _ in model.named_modules()])

    def owned(self, label: str, names: Iterable[str]) -> frozenset[str]:
        """Keep the names that lie in one of `scopes`, which may be empty."""
        return self._below(self.scopes[label], names)

    def _within(self, model: nn.Module, scope: str | None, names: list[str]) -> frozenset[str]:
        """Keep the names that lie in a scope."""
        if scope is None or (scope == BODY and self.divided):
            return frozenset(name for name in names if not self.is_new(name))
        if scope == EVERYTHING:
            return frozenset(names)
        if self.scopes.get(scope):
            return self.owned(scope, names)
        return self._below([prefix for group in self.groups(model, scope).values() for prefix in group], names)

    def _below(self, prefixes: Sequence[str], names: Iterable[str]) -> frozenset[str]:
        """Keep the names below one of `prefixes`: what is new only if the prefix is new itself."""
        new = tuple(prefix for prefix in prefixes if self.is_new(prefix))
        return frozenset(name for name in names if is_within(name, new if self.is_new(name) else tuple(prefixes)))


def is_within(name: str, prefixes: tuple[str, ...]) -> bool:
    """Say whether the module or parameter `name` is one of `prefixes` or lies below one."""
    return any(not prefix or name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def surely_contains(outer: str | None, inner: str | None) -> bool:
    """Say whether scope `outer` contains `inner` on any model (`False` also means: cannot tell)."""
    if outer in (inner, EVERYTHING):
        return True
    if inner is None or inner == EVERYTHING:
        return False
    if outer is None:
        return inner.partition(".")[0] in ("vision", "text")
    return not _is_glob(outer) and is_within(inner, (outer,))


def surely_disjoint(one: str | None, other: str | None) -> bool:
    """Say whether two scopes share nothing on any model (`False` also means: cannot tell)."""
    if EVERYTHING in (one, other) or one == other:
        return False
    if one is None or other is None:
        named = other if one is None else one
        assert named is not None
        return named.partition(".")[0] in NEW_PARTS
    if _is_glob(one) or _is_glob(other):
        return False
    return not is_within(one, (other,)) and not is_within(other, (one,))


def _is_glob(scope: str) -> bool:
    return any(character in scope for character in "*?[")
