"""Linear layers whose weight another module's code reads, found in the source of what a model's `forward` reaches.

T5 casts to `self.wo.weight.dtype`, Mamba multiplies by `self.dt_proj.weight`: a layer put in their place is passed by,
or gives the type of its packed bytes. Such reads show nowhere but in the code. That of torch itself is left out, which
`uncalled_layers` and `disable_fast_path` know.
"""

from __future__ import annotations

import inspect
from types import FunctionType
from typing import TYPE_CHECKING, Any, NamedTuple

from strategies.structure.layers.source_reads import ANY, PARAMETERS, names_in, source_reads
from strategies.structure.linear_layers import is_conv1d

if TYPE_CHECKING:
    from torch import nn

    from strategies.structure.layers.source_reads import How, Path

FOREIGN = ("torch.", "peft.", "bitsandbytes.", "torchao.", "transformers.modeling_utils")


class Read(NamedTuple):
    """A weight that is read: by the code of which class, and what for."""

    reader: str
    how: How


def weight_reads(model: nn.Module) -> dict[str, Read]:
    """Give linear layer → how its weight is read by code that a forward pass of `model` may reach."""
    from torch import nn

    methods = _reachable({type(module) for module in model.modules()})
    places = {id(module): name for name, module in model.named_modules()}
    found: dict[str, Read] = {}
    for module in model.modules():
        for read in (read for method in methods[type(module)] for read in source_reads(method)):
            for layer in _resolve(module, read.path):
                target = _first_owner(layer) if read.path[-1] == PARAMETERS else layer
                linear = isinstance(target, nn.Linear) or is_conv1d(target)
                if linear and all(condition.may_hold(module) for condition in read.conditions):
                    found.setdefault(places[id(target)], Read(type(module).__name__, read.how))
    return found


def _reachable(classes: set[type]) -> dict[type, list[FunctionType]]:
    """Give class → those of its methods that `forward` may reach, going by the names that code mentions."""
    methods = {kind: _methods(kind) for kind in classes}
    names, reached = {"forward"}, dict[FunctionType, None]()
    while new := [f for own in methods.values() for name, f in own.items() if name in names and f not in reached]:
        for function in new:
            reached[function] = None
            names |= set(names_in(function.__code__))
    return {kind: [f for f in own.values() if f in reached] for kind, own in methods.items()}


def _methods(kind: type) -> dict[str, FunctionType]:
    """Give the methods and properties of a module's class, those of torch and of other foreign bases left out."""
    found: dict[str, FunctionType] = {}
    for base in reversed(kind.__mro__):
        if f"{base.__module__}.".startswith(FOREIGN) or base is object:
            continue
        for name, member in vars(base).items():
            function = inspect.unwrap(getattr(member, "fget", None) or getattr(member, "__func__", member))
            if isinstance(function, FunctionType):
                found[name] = function
    return found


def _resolve(module: nn.Module, path: Path) -> list[nn.Module]:
    """Give the modules at the end of a path."""
    found: list[Any] = [module]
    for step in path:
        if step != PARAMETERS:
            children = [vars(part)["_modules"] for part in found]
            parts = [part for own in children for part in (own.values() if step == ANY else [own.get(step)])]
            found = [part for part in parts if part is not None]
    return found


def _first_owner(module: nn.Module) -> nn.Module:
    """Give the module that holds the first parameter, whose type stands for all of them in `next(parameters())`."""
    return next((part for part in module.modules() if any(True for _ in part.parameters(recurse=False))), module)
