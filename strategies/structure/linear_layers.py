"""What counts as a linear layer: `nn.Linear`, and GPT-2's `Conv1D`, which is one with its weight transposed.

Adapters and quantising know `nn.Linear` only, so a `Conv1D` they reach is replaced by the same layer in that form. Its
parameter stays the same object, its values are transposed. `Tuned.merge` turns it back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from strategies.errors import PlanError
from strategies.structure.layers.computed_weights import remedy_for_computed_weight
from strategies.structure.layers.replaced_layers import move_place

if TYPE_CHECKING:
    from torch import nn

WAS_CONV1D = "_was_conv1d"


def is_conv1d(layer: nn.Module) -> bool:
    """Say whether a layer is transformers' `Conv1D` (not torch's convolution)."""
    return type(layer).__name__ == "Conv1D" and type(layer).__module__ == "transformers.pytorch_utils"


def conv1d_to_linear(model: nn.Module, name: str) -> None:
    """Replace the `Conv1D` called `name` by an equal `nn.Linear`; other layers stay as they are.

    `PlanError` where several layers share the weight, which would be transposed under all of them.
    """
    from torch import nn

    old = model.get_submodule(name)
    if not is_conv1d(old):
        return
    if remedy := remedy_for_computed_weight(old, name):
        raise PlanError(f"{name!r} computes its transposed weight anew each time; call {remedy} before")
    users = sum(part is old.weight for module in model.modules() for part in module.parameters(recurse=False))
    if users > 1:
        raise PlanError(f"{name!r} shares its transposed weight with another layer; give each a weight of its own")
    new = nn.Linear(1, 1, bias=False, device="meta")
    new.weight, new.bias = cast("nn.Parameter", old.weight), cast("nn.Parameter", old.bias)
    new.weight.data = new.weight.data.t().contiguous()
    new.out_features, new.in_features = new.weight.shape
    move_place(new, old)
    vars(new)[WAS_CONV1D] = True
    model.set_submodule(name, new)


def linear_to_conv1d(model: nn.Module) -> None:
    """Undo `conv1d_to_linear` everywhere in a model."""
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    for name, layer in [*model.named_modules()]:
        if type(layer) is nn.Linear and WAS_CONV1D in vars(layer):
            new = Conv1D(layer.out_features, layer.in_features)
            new.weight, new.bias = layer.weight, layer.bias
            new.weight.data = new.weight.data.t().contiguous()
            move_place(new, layer)
            model.set_submodule(name, new)
