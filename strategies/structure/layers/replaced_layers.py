"""A linear layer in the place of another: what belongs to the place and not to the weight goes over.

Hooks, training mode, own attributes, children and the class of a subclass of `nn.Linear` stay, so that code that asks
for them goes on working; `give_back` takes them from there to a plain layer again.

A layer whose weight is stored in few bits has to take and give what a plain one does: bitsandbytes' take whole numbers
without a word, some of them no more than three dimensions, and give views that nothing may be written into.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, cast

from strategies.errors import SelfCheckError

if TYPE_CHECKING:
    from torch import Tensor, nn

CLASS_BEFORE = "_class_before"  # on a layer in another's place: the class of the one before
NAMES_BEFORE = "_attributes_before"  # the names of the attributes that came with it
PLACE = "_place"  # on a layer whose weight is stored in few bits: its name in the model


@cache
def _usual_attributes() -> frozenset[str]:
    """Name what every linear layer has."""
    from torch import nn

    return frozenset(vars(nn.Linear(1, 1, device="meta")))


@cache
def _class_in_place(new: Any, old: Any, *, stored: bool) -> Any:
    """Give a class that computes as `new` does and is an `old`; `stored`: takes and gives what a linear layer does."""
    from torch import nn

    def forward(self: Any, inputs: Tensor) -> Tensor:
        refuse_whole_numbers(inputs, vars(self)[PLACE])
        outputs: Tensor = new.forward(self, inputs.reshape(-1, inputs.shape[-1]))
        outputs = outputs.clone() if outputs._is_view() else outputs  # noqa: SLF001 - torch has no other word for it
        return outputs.reshape(*inputs.shape[:-1], outputs.shape[-1])

    def rebuild(self: Any, protocol: Any) -> Any:
        del protocol
        return _without_attributes, (new, old, stored), vars(self)

    changes: dict[str, Any] = {"__module__": new.__module__, "__reduce_ex__": rebuild}
    changes |= {"forward": forward} if stored else {}
    return type(new.__name__, (new,) if old is nn.Linear else (new, old), changes)


def _without_attributes(new: type, old: type, stored: bool) -> Any:
    """Make a layer for copies and pickles, which then give it its attributes."""
    kind = _class_in_place(new, old, stored=stored)
    return kind.__new__(kind)


def refuse_whole_numbers(inputs: Tensor, name: str) -> None:
    """Refuse inputs that are whole numbers, as a plain linear layer does, with a `SelfCheckError`."""
    if not inputs.is_floating_point():
        raise SelfCheckError(
            f"{name!r} gets its input in {inputs.dtype}: the model casts to the type of a weight, which is stored in "
            "few bits here. Name other layers with scope=… where it is quantised, or leave that out"
        )


def take_over(new: nn.Module, old: nn.Module, *, stored_as: str | None = None) -> None:
    """Give `new`, which comes in the place of the linear layer `old`, everything of it but the weight.

    stored_as: its name in the model, if it stores its weight in few bits.
    """
    names = tuple(vars(old).keys() - _usual_attributes() - vars(new).keys())
    vars(new).update({CLASS_BEFORE: type(old), NAMES_BEFORE: names, PLACE: stored_as})
    move_place(new, old, names)
    vars(new)["_parameters"].update({name: p for name, p in vars(old)["_parameters"].items() if name != "weight"})
    new.__class__ = _class_in_place(cast("Any", type(new)), cast("Any", type(old)), stored=stored_as is not None)


def give_back(plain: nn.Module, replaced: nn.Module) -> None:
    """Give `plain`, an `nn.Linear` with its weights, what `take_over` gave to the layer that it now replaces."""
    from torch import nn

    move_place(plain, replaced, vars(replaced).get(NAMES_BEFORE, ()))
    plain.__class__ = vars(replaced).get(CLASS_BEFORE, nn.Linear)


def move_place(new: nn.Module, old: nn.Module, names: tuple[str, ...] = ()) -> None:
    """Hand over hooks (the same dictionaries, so that their handles stay valid), children, mode and `names`."""
    before: dict[str, Any] = vars(old)
    hooks = [name for name in before if name.startswith(("_forward", "_backward")) and "hooks" in name]
    vars(new).update({name: before[name] for name in (*hooks, *names)})
    for kind in ("_buffers", "_modules"):
        vars(new)[kind].update(before[kind])
    new.train(old.training)
