"""Where things are in a model: towers, fusion, head, and what a scope means.

A scope is a name from `model.scopes`, a module's name, or a glob over `named_modules`; `None` is everything but
fusion and head. Everything is kept as *names*, so that a layout survives surgery which replaces modules. The
first half of the file answers for a model, the second half compares scopes when there is no model yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from strategies.errors import PlanError, closest_first

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

EVERYTHING = "*"  # the whole model, head and fusion included
NEW_PARTS = ("fusion", "head")  # trained from scratch: always train, with their own rate


@dataclass(frozen=True)
class Layout:
    """Names of modules: `scopes` as offered or guessed, `new_parts` = fusion and head.

    `head_origin` says how the head was found.
    """

    scopes: Mapping[str, tuple[str, ...]]
    new_parts: tuple[str, ...]
    head_origin: str

    @property
    def towers(self) -> dict[str, tuple[str, ...]]:
        """Give the scopes that hold pretrained parts."""
        return {name: prefixes for name, prefixes in self.scopes.items() if name not in NEW_PARTS}

    def is_new(self, name: str) -> bool:
        """Say whether a parameter or module belongs to fusion or head."""
        return is_within(name, self.new_parts)

    def tied_head(self, model: nn.Module) -> str | None:
        """Name the parameter that a head without its own shares with a part before it, as in language models."""
        head = self.scopes["head"]
        if self.parameter_names(model, "head"):
            return None
        used = {id(p) for name in head for p in model.get_submodule(name).parameters()}
        return next((name for name, parameter in model.named_parameters() if id(parameter) in used), None)

    def groups(self, model: nn.Module, scope: str | None) -> dict[str, tuple[str, ...]]:
        """Resolve a scope to labelled groups of module names; a scope that matches nothing is an error."""
        if scope is None:
            return self.towers
        if scope == EVERYTHING:
            return {EVERYTHING: ("",)}
        if scope in self.scopes:
            return {scope: self.scopes[scope]}
        first, _, rest = scope.partition(".")
        patterns = [f"{root}.{rest}" for root in self.scopes.get(first, ())] + [scope]
        names = [name for name, _ in model.named_modules() if name]
        matches = [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
        if not matches:
            known = [*self.scopes, *(name for name in names if name.count(".") <= 1)]
            raise PlanError(
                f"scope {scope!r} matches nothing in {type(model).__name__}; there is: "
                f"{closest_first(scope, dict.fromkeys(known))}"
            )
        outermost = [name for name in matches if not is_within(name.rpartition(".")[0], tuple(matches))]
        return {scope: tuple(outermost)}

    def parameter_names(self, model: nn.Module, scope: str | None) -> frozenset[str]:
        """Give the names of the parameters in a scope."""
        return self._within(model, scope, (name for name, _ in model.named_parameters()))

    def module_names(self, model: nn.Module, scope: str | None) -> frozenset[str]:
        """Give the names of the modules in a scope."""
        return self._within(model, scope, (name for name, _ in model.named_modules()))

    def _within(self, model: nn.Module, scope: str | None, names: Iterable[str]) -> frozenset[str]:
        """Keep the names that lie in a scope."""
        if scope is None:
            return frozenset(name for name in names if not self.is_new(name))
        prefixes = tuple(prefix for group in self.groups(model, scope).values() for prefix in group)
        return frozenset(name for name in names if is_within(name, prefixes))


def is_within(name: str, prefixes: tuple[str, ...]) -> bool:
    """Say whether the module or parameter `name` is one of `prefixes` or lies below one."""
    return any(not prefix or name == prefix or name.startswith(prefix + ".") for prefix in prefixes)


def find_layout(model: nn.Module, head: str | None = None) -> Layout:
    """Find towers, fusion and head: `head=`, else `model.scopes["head"]`, else the last child with parameters."""
    offered = _scopes_of(model)
    found: tuple[str, ...]
    if head is not None:
        names = {name for name, _ in model.named_modules()} - {""}
        if head not in names:
            raise PlanError(
                f"head={head!r} is no module of {type(model).__name__}; there is: {closest_first(head, names)}"
            )
        found, origin = (head,), "named by the caller"
    elif "head" in offered:
        found, origin = offered["head"], "model.scopes"
    else:
        children = [name for name, child in model.named_children() if any(True for _ in child.parameters())]
        if len(children) <= 1:
            raise PlanError(f"cannot tell the head of {type(model).__name__} from its body: name it with head=…")
        found, origin = (children[-1],), "the last child with parameters"
    new = tuple(dict.fromkeys((*found, *offered.get("head", ()), *offered.get("fusion", ()))))
    scopes = {**offered, "head": found}
    if not set(scopes) - set(NEW_PARTS):
        scopes = {"body": tuple(_body(model, "", new)), **scopes}
    return Layout(scopes=scopes, new_parts=new, head_origin=origin)


def _scopes_of(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Read `model.scopes`, a dict of sub-modules that a model may offer, as names."""
    offered = getattr(model, "scopes", None)
    if not isinstance(offered, Mapping):
        return {}
    names = {id(module): name for name, module in model.named_modules()}
    strangers = [scope for scope, module in offered.items() if id(module) not in names]
    if strangers:
        raise PlanError(f"{type(model).__name__}.scopes[{strangers[0]!r}] is not a sub-module of the model")
    return {scope: (names[id(module)],) for scope, module in offered.items()}


def _body(model: nn.Module, name: str, new: tuple[str, ...]) -> list[str]:
    """List the largest modules with parameters that hold no part of `new`."""
    if is_within(name, new) and name:
        return []
    if name and not any(is_within(part, (name,)) for part in new):
        return [name] if any(True for _ in model.parameters()) else []
    children = model.named_children()
    return [found for child, module in children for found in _body(module, f"{name}.{child}".lstrip("."), new)]


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
