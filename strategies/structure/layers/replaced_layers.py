"""A linear layer in the place of another: what belongs to the place and not to the weight goes over.

Hooks, training mode, own attributes, children and the class of a subclass of `nn.Linear` stay, so that code that asks
for them goes on working; `give_back` takes them from there to a plain layer again. A layer whose weight is stored in
few bits takes inputs of any type without a word, so it is told to refuse whole numbers, as a plain one does.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from strategies.errors import SelfCheckError

if TYPE_CHECKING:
    from torch import Tensor, nn

CLASS_BEFORE = "_class_before"  # on a layer in another's place: the class of the one before
NAMES_BEFORE = "_attributes_before"  # the names of the attributes that came with it
PLACE = "_place"  # its name in the model


@cache
def _usual_attributes() -> frozenset[str]:
    """Name what every linear layer has."""
    from torch import nn

    return frozenset(vars(nn.Linear(1, 1, device="meta")))


@cache
def _joint_class(new: type, old: type) -> Any:
    """Give a class that computes as `new` does and is an `old`, too."""
    return type(new.__name__, (new, old), {})


def take_over(new: nn.Module, old: nn.Module) -> None:
    """Give `new`, which comes in the place of the linear layer `old`, everything of it but the weight."""
    from torch import nn

    names = tuple(vars(old).keys() - _usual_attributes() - vars(new).keys())
    vars(new).update({CLASS_BEFORE: type(old), NAMES_BEFORE: names})
    move_place(new, old, names)
    vars(new)["_parameters"].update({name: p for name, p in vars(old)["_parameters"].items() if name != "weight"})
    if type(old) is not nn.Linear:
        new.__class__ = _joint_class(cast("Any", type(new)), cast("Any", type(old)))


def give_back(plain: nn.Module, replaced: nn.Module) -> None:
    """Give `plain`, an `nn.Linear` with its weights, what `take_over` gave to the layer that it now replaces."""
    from torch import nn

    move_place(plain, replaced, vars(replaced).get(NAMES_BEFORE, ()))
    plain.__class__ = vars(replaced).get(CLASS_BEFORE, nn.Linear)
    allow_whole_numbers(plain)


def move_place(new: nn.Module, old: nn.Module, names: tuple[str, ...] = ()) -> None:
    """Hand over hooks (the same dictionaries, so that their handles stay valid), children, mode and `names`."""
    before: dict[str, Any] = vars(old)
    hooks = [name for name in before if name.startswith(("_forward", "_backward")) and "hooks" in name]
    vars(new).update({name: before[name] for name in (*hooks, *names)})
    for kind in ("_buffers", "_modules"):
        vars(new)[kind].update(before[kind])
    new.train(old.training)


def refuse_whole_numbers(layer: nn.Module, name: str) -> None:
    """Let the layer called `name` refuse inputs that are whole numbers, with a `SelfCheckError`."""
    vars(layer)[PLACE] = name
    layer.register_forward_pre_hook(_refuse_whole_numbers)


def allow_whole_numbers(layer: nn.Module) -> None:
    """Undo `refuse_whole_numbers`, if it was done."""
    hooks = vars(layer)["_forward_pre_hooks"]
    for key in [key for key, hook in hooks.items() if hook is _refuse_whole_numbers]:
        del hooks[key]


def _refuse_whole_numbers(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
    inputs = cast("Tensor", arguments[0]) if arguments else None
    if inputs is not None and not inputs.is_floating_point():
        raise SelfCheckError(
            f"{vars(layer)[PLACE]!r} gets its input in {inputs.dtype}: the model casts to the type of a weight, which "
            "is stored in few bits here. Name other layers with scope=… where it is quantised, or leave that out"
        )
