"""Layers whose weight other code reads instead of calling the layer: an adapter around them is passed over.

A model's code says so (`self.dt_proj.weight @ x`), so the functions that `forward` reaches are read, class by class.
What is asked of a weight besides its values (its type, shape or device) does no harm. Code without source, or which
reads weights in ways that a look at it does not show, is left to the check of the first step.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from strategies.structure.choice.source_reader import EACH, WEIGHT, Kind, Path, Use, uses_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType, FunctionType

    from torch import nn

GUARDED_MODULE = "torch.nn.modules.transformer"  # its fast paths read weights, and `disable_fast_path` turns them off
WORST_FIRST: tuple[Kind, ...] = ("changed", "fused", "elsewhere")


class Read(NamedTuple):
    """How a layer's weight is read or changed, and by which function.

    "uncalled": it is read, and the layer is called nowhere; "changed": in place; "fused": one call takes it with other
    layers' weights, as kernels do that compute them together; "elsewhere": beside places that call the layer.
    """

    kind: Kind
    where: str


def direct_reads(model: nn.Module) -> dict[str, Read]:
    """Give name → how its weight is read, for every module below a model whose weight its code reads directly."""
    owners = list(model.named_modules())
    names = {id(module): name for name, module in owners}
    reads: dict[int, Read] = {}
    for _, owner in owners:
        for use in _uses(cast("Any", type(owner)), WEIGHT):
            kind = cast("Kind", use.how)
            for part in _used(owner, use) if use.how != "object" else ():
                known = reads.get(id(part))
                if known is None or WORST_FIRST.index(kind) < WORST_FIRST.index(known.kind):
                    reads[id(part)] = Read(kind, use.where)
    called = _called(owners, {_word(names[part]) for part in reads})
    return {
        names[part]: read if part in called or read.kind == "changed" else Read("uncalled", read.where)
        for part, read in reads.items()
    }


def _word(name: str) -> str:
    """Give the last part of a name that is a word, which code that uses the module names."""
    return next((part for part in reversed(name.split(".")) if not part.isdigit()), "")


def _called(owners: list[tuple[str, nn.Module]], words: set[str]) -> set[int]:
    """Give the ids of modules that are called or handed on by functions which name one of `words`."""
    from torch import nn

    found: set[int] = set()
    for _, owner in owners:
        for use in (use for word in words for use in _uses(cast("Any", type(owner)), word) if use.how == "object"):
            for part in _used(owner, use):
                found.add(id(part))
                if isinstance(part, nn.Sequential):
                    found.update(map(id, part))
    return found


def _used(owner: nn.Module, use: Use) -> Iterator[nn.Module]:
    """Give the modules that a use is about; none if a test of the owner's own attributes keeps it from happening."""
    for test, wanted in use.tests:
        try:
            answer = bool(eval(test, {"hasattr": hasattr}, {"self": owner}))  # noqa: S307 - the model's own words
        except (AttributeError, TypeError, NameError):
            continue
        if answer != wanted:
            return
    yield from _resolve(owner, use.path)


def _resolve(owner: nn.Module, path: Path) -> Iterator[nn.Module]:
    """Give the modules that a path from `owner` leads to; none where it leads to something else."""
    if not path:
        yield owner
        return
    for name, child in owner.named_children():
        if path[0] in (EACH, name):
            yield from _resolve(child, path[1:])


@cache
def _uses(kind: Any, word: str) -> tuple[Use, ...]:
    """Give the uses of modules in those functions of a class that name `word`."""
    return tuple(use for function in _reached(kind) if word in _names(function.__code__) for use in uses_of(function))


@cache
def _reached(kind: Any) -> tuple[FunctionType, ...]:
    """Give the functions of a class that its `forward` leads to."""
    queue: list[str] = ["forward"]
    reached: dict[str, FunctionType] = {}
    while queue:
        name = queue.pop()
        function = None if name in reached else _function(kind, name)
        if function is not None and function.__module__ != GUARDED_MODULE:
            reached[name] = function
            queue += _names(function.__code__)
    return tuple(reached.values())


def _function(kind: type, name: str) -> FunctionType | None:
    """Give a class's own function or property of that name, without its decorators; none of `nn.Module`'s."""
    from torch import nn

    found = inspect.getattr_static(kind, name, None)
    if found is None or vars(nn.Module).get(name) is found:
        return None
    found = getattr(found, "fget", getattr(found, "__func__", found))
    found = inspect.unwrap(found) if callable(found) else None
    return found if inspect.isfunction(found) else None


def _names(code: CodeType) -> frozenset[str]:
    """Give the names that a function and those within it use."""
    inner = (part for part in code.co_consts if inspect.iscode(part))
    return frozenset(code.co_names).union(*map(_names, inner))
