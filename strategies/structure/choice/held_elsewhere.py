"""Layers that a model keeps outside its modules, too: in a plain list beside `add_module`, in a dictionary, a partial.

Code that takes them from there goes on with the layer itself, whatever stands in its place among the modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

DEEPEST = 3  # of containers in each other
OFFERED = "scopes"  # an attribute by which a model offers its parts to this package, and calls none


def held_elsewhere(model: nn.Module) -> dict[str, str]:
    """Give name → where, such as `Net.layers`, for the modules that a model's plain attributes hold."""
    from torch import nn

    names = {id(part): name for name, part in model.named_modules()}
    usual = {*vars(nn.Module()), OFFERED}
    found: dict[str, str] = {}
    for owner in model.modules():
        for attribute, value in vars(owner).items():
            if attribute in usual:
                continue
            for part in _modules_in(value):
                if id(part) in names and part is not owner:
                    found.setdefault(names[id(part)], f"{type(owner).__name__}.{attribute}")
    return found


def _modules_in(value: Any, depth: int = 0) -> Iterator[nn.Module]:
    """Give the modules in containers, partial functions and methods bound to them."""
    from torch import nn

    if isinstance(value, nn.Module):
        yield value
    elif depth < DEEPEST:
        parts: list[Any] = []
        if isinstance(value, Mapping | list | tuple | set):
            parts = list(value.values() if isinstance(value, Mapping) else value)
        elif isinstance(value, partial):
            parts = [value.func, *value.args, *value.keywords.values()]
        elif isinstance(bound := getattr(value, "__self__", None), nn.Module):
            parts = [bound]
        for part in parts:
            yield from _modules_in(part, depth + 1)
