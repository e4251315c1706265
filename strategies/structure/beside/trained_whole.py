"""Modules that train whole beside adapters: `modules_to_save`, as in PEFT.

They are looked for in the towers that the strategy's scope touches, and among the new parts, which train anyway.
Adapters do not go into them, a quantised base leaves them out, and weights they share with others stay shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from strategies.errors import PlanError, closest_first
from strategies.layout import EVERYTHING, Layout, is_within
from strategies.structure.choice.requests import matcher

if TYPE_CHECKING:
    from torch import nn

    from strategies.protocol import Strategy

OPTION = "modules_to_save"


def searched(layout: Layout, model: nn.Module, scope: str | None) -> tuple[str, ...]:
    """Give the prefixes in which what trains beside adapters may lie: the towers that a scope touches, new parts."""
    if scope in (None, EVERYTHING):
        return ("",)
    roots = tuple(root for group in layout.groups(model, scope).values() for root in group)
    touched = [
        tower
        for towers in layout.towers.values()
        if any(is_within(root, towers) for root in roots) or any(is_within(tower, roots) for tower in towers)
        for tower in towers
    ]
    return tuple(dict.fromkeys((*touched, *roots, *layout.new_parts)))


def trained_whole(strategy: Strategy, model: nn.Module, layout: Layout) -> tuple[str, ...]:
    """Name the modules that a strategy trains whole, outermost only; `PlanError` for an entry that means none."""
    entries = vars(strategy).get(OPTION) or ()
    if not entries:
        return ()
    prefixes = searched(layout, model, strategy.scope_name())
    first: dict[int, str] = {}  # a module may stand in several places, its parameters are named after the first
    places: dict[str, str] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        if name and is_within(name, prefixes) and any(True for _ in module.parameters()):
            places[name] = first.setdefault(id(module), name)
    found: dict[str, None] = {}
    for entry in entries:
        matching = [places[name] for name in filter(matcher(strategy.name, OPTION, entry), places)]
        if not matching:
            there = closest_first(entry, {name.rpartition(".")[2] for name in places})
            raise PlanError(f"{strategy.name}: {OPTION} has {entry!r}, which matches no module; there is: {there}")
        found |= dict.fromkeys(matching)
    return tuple(name for name in found if not is_within(name.rpartition(".")[0], tuple(found)))


def without(chosen: dict[str, list[str]], whole: tuple[str, ...], strategy: Strategy) -> dict[str, list[str]]:
    """Leave layers that train whole out of those to adapt; `PlanError` where none is left in a root."""
    kept = {root: [name for name in names if not is_within(name, whole)] for root, names in chosen.items()}
    for root, names in kept.items():
        if not names:
            raise PlanError(
                f"{strategy.name}: {OPTION}={list(whole)} leaves no layer to adapt in {root!r}: name less, or other "
                "target_modules"
            )
    return kept


def train_whole(model: nn.Module, names: tuple[str, ...]) -> None:
    """Let modules train, in plain floats and with batch norms that learn; `PlanError` for weights in few bits."""
    for name in names:
        _leave_unquantised(model, name)
        module = model.get_submodule(name)
        for part in module.modules():
            vars(part).pop("train", None)  # a batch norm that was kept in evaluation mode
        module.train(model.training)
        for inner, parameter in module.named_parameters():
            if not (parameter.is_floating_point() or parameter.is_complex()):
                raise PlanError(f"{OPTION}: {name}.{inner} is stored in few bits and cannot train: load it in floats")
            parameter.requires_grad_(True)


def is_tied(model: nn.Module, name: str) -> bool:
    """Say whether a module shares a parameter with one outside it."""
    inside = {*model.get_submodule(name).modules()}
    own = {id(parameter) for part in inside for parameter in part.parameters(recurse=False)}
    others = [part for part in model.modules() if part not in inside]
    return any(id(parameter) in own for part in others for parameter in part.parameters(recurse=False))


def _leave_unquantised(model: nn.Module, name: str) -> None:
    """Put plain layers back where layers wait for being quantised: until they move they hold float weights."""
    import bitsandbytes as bnb
    from torch import nn

    for path, layer in [*model.get_submodule(name).named_modules(prefix=name)]:
        if isinstance(layer, bnb.nn.Linear4bit | bnb.nn.Linear8bitLt) and layer.weight.is_floating_point():
            plain = nn.Linear(layer.in_features, layer.out_features, bias=False, device="meta")
            plain.weight, plain.bias = nn.Parameter(layer.weight.detach()), layer.bias
            model.set_submodule(path, plain.train(layer.training))
