"""What stands in the place of a layer that got an adapter answers as the layer did to code that asks it something.

Hooks that a model's own code registered (to gather features, say) are about the layer's output, which is now the
wrapper's: left where they were, they would see what the layer gives without its adapter. So they move out to the
wrapper, and back when it is merged; hooks by which torch computes a weight before each pass belong to the layer and
stay. Attributes (a convolution's stride, what a class of one's own keeps) are shown on the wrapper, too.
"""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from strategies.structure.blocks import ADAPTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import nn

FULL = "_is_full_backward_hook"  # torch's note of what the backward hooks are
BEFORE = "_forward_pre_hooks"


def answer_as_before(model: nn.Module) -> None:
    """Give every wrapper of a model the hooks of the layer in it, and those of its attributes that it lacks."""
    for wrapper in [*model.modules()]:
        if (layer := wrapped_layer(wrapper)) is not None:
            hand_over_hooks(layer, wrapper)
            own: dict[str, Any] = vars(layer)
            shown = {name: value for name, value in own.items() if not (name.startswith("_") or hasattr(wrapper, name))}
            vars(wrapper).update(shown)


def wrapped_layer(part: nn.Module) -> nn.Module | None:
    """Give the layer in an adapter of PEFT's or of this package's; a model's own class may call a part so, too."""
    ours = type(part).__module__.startswith(("peft.", "strategies."))
    return vars(part)["_modules"].get(ADAPTED) if ours else None


def hand_over_hooks(old: nn.Module, new: nn.Module) -> None:
    """Give `new` the hooks of `old`: the same dictionaries, so that handles stay valid."""
    before = _hooks(old)
    if not any(before.values()):
        return
    for name, hooks in before.items():
        hooks.update(vars(new)[name])  # a start of LoRA that looks at the first inputs, say
        vars(new)[name] = hooks
    vars(new)[FULL] = vars(old)[FULL]
    vars(old).update({**{name: OrderedDict() for name in before}, FULL: None})


@contextmanager
def without_hooks(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Call layers within, and no hooks of theirs."""
    kept = [(layer, _hooks(layer)) for layer in layers]
    try:
        for layer, hooks in kept:
            vars(layer).update({name: OrderedDict() for name in hooks})
        yield
    finally:
        for layer, hooks in kept:
            vars(layer).update(hooks)


def _hooks(layer: nn.Module) -> dict[str, Any]:
    """Give a layer's dictionaries of hooks, by name, but for those that compute its weight."""
    own: dict[str, Any] = vars(layer)
    names = [name for name in own if name.startswith(("_forward", "_backward")) and "hooks" in name]
    computes = "weight" not in own["_parameters"] and bool(own[BEFORE]) and ADAPTED not in own["_modules"]
    return {name: own[name] for name in names if not (computes and name.startswith(BEFORE))}
