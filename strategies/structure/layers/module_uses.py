"""What the code of a model does with each of its modules, as far as `forward` reaches that code.

Read class by class and kept while the class lives, so the same model a second time costs nothing. Left out are torch's
transformer layers, whose reads of weights `disable_fast_path` turns off, and the libraries around a model.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from strategies.structure.layers.source_reader import EACH, names_in, uses_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from collections.abc import Set as AbstractSet

    from torch import nn

    from strategies.structure.layers.source_reader import Path, Use

FOREIGN: Final = (
    "builtins.", "torch.nn.modules.module.", "torch.nn.modules.transformer.", "transformers.modeling_utils.", "peft.",
    "bitsandbytes.", "torchao.",
)  # fmt: skip
LOOPED: Final = frozenset({"children", "named_children"})  # by which code reaches modules without their names


class _Method:
    """The names that a method mentions and the uses in it, each read when first asked for; never the method itself."""

    names: frozenset[str] | None = None
    uses: tuple[Use, ...] | None = None


_known: WeakKeyDictionary[type, dict[str, _Method]] = WeakKeyDictionary()


def uses_in(model: nn.Module, words: AbstractSet[str]) -> Iterator[tuple[nn.Module, Use, list[nn.Module]]]:
    """Give each use in methods that mention one of `words`: the module with the method, the use, the modules used."""
    uses = {kind: [*_uses(kind, names, words | LOOPED)] for kind, names in _reached(model).items()}
    for owner in model.modules():
        for use in uses[type(owner)]:
            if (found := _at(owner, use.path)) and use.may_happen(owner):
                yield owner, use, found


def words_of(names: Iterable[str]) -> frozenset[str]:
    """Give the last part of each name that is a word, by which code mentions what has the name."""
    parts = ([part for part in name.split(".") if not part.isdigit()] for name in names)
    return frozenset(words[-1] for words in parts if words)


def _at(owner: nn.Module, path: Path) -> list[nn.Module]:
    """Give the modules that a path leads to; none where it leads to something else."""
    found: list[Any] = [owner]
    for step in path:
        children = [vars(part)["_modules"] for part in found]
        found = [part for own in children for part in (own.values() if step == EACH else [own.get(step)])]
        found = [part for part in found if part is not None]
    return found


def _reached(model: nn.Module) -> dict[type, set[str]]:
    """Give class → names of its methods that `forward` may lead to, going by the names that code mentions."""
    reached: dict[type, set[str]] = {type(module): set() for module in model.modules()}
    words, before = {"forward"}, 0
    while len(words) > before:
        before = len(words)
        for kind, names in reached.items():
            for name in (_methods(kind).keys() & words) - names:
                names.add(name)
                words |= _names(kind, name)
    return reached


def _uses(kind: type, names: Iterable[str], words: AbstractSet[str]) -> Iterator[Use]:
    """Give the uses in those methods of a class that mention one of `words`."""
    for name in names:
        method = _methods(kind)[name]
        if words.isdisjoint(_names(kind, name)):
            continue
        if method.uses is None:
            member = _members(kind)[name]
            bound = not isinstance(member, staticmethod | classmethod)  # the others' first argument is no module
            method.uses = uses_of(_function(member)) if bound else ()
        yield from method.uses


def _names(kind: type, name: str) -> frozenset[str]:
    method = _methods(kind)[name]
    if method.names is None:
        method.names = names_in(_function(_members(kind)[name]).__code__)
    return method.names


def _methods(kind: type) -> dict[str, _Method]:
    if kind not in _known:
        _known[kind] = {name: _Method() for name, member in _members(kind).items() if _function(member)}
    return _known[kind]


def _members(kind: type) -> dict[str, Any]:
    """Give what a class and its bases define, foreign ones left out."""
    bases = [base for base in reversed(kind.__mro__) if not f"{base.__module__}.".startswith(FOREIGN)]
    return {name: member for base in bases for name, member in vars(base).items()}


def _function(member: Any) -> Any:
    """Give the function of a method or a property, without its decorators; none of anything else."""
    found = inspect.unwrap(getattr(member, "fget", None) or getattr(member, "__func__", member))
    return found if isinstance(found, FunctionType) else None
