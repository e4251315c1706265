"""Swap linear layers for quantised ones, in memory: shared by `nf4` and `int8`.

transformers' own replacement builds empty weights and accelerate's needs a GPU, so this walks the model itself:
each plain `nn.Linear` of a scope becomes a bitsandbytes layer that still holds the float weight, and bitsandbytes
quantises it when the model moves to its device (CPU counts). Left alone: everything that is no `nn.Linear`
(embeddings, norms, convolutions), layers inside `nn.MultiheadAttention`, and weights shared with another module.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from strategies.blocks import read_directly
from strategies.errors import PlanError
from strategies.layout import inside
from strategies.linears import straighten
from strategies.roles import linear_layers

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from strategies.layout import Layout


def swap_linears(model: nn.Module, layout: Layout, where: str | None, make: Callable[[nn.Linear], nn.Linear]) -> None:
    """Replace the plain linear layers of a scope by `make(layer)`; a tower without any is an error."""
    from torch import nn

    uses = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    left_alone = read_directly(model)
    for label, prefixes in layout.groups(model, where).items():
        for name in linear_layers(model, prefixes):
            straighten(model, name)
        layers = {
            name: module
            for name, module in model.named_modules()
            if type(module) is nn.Linear and inside(name, prefixes) and name not in left_alone
        }  # fmt: skip
        own = {name: layer for name, layer in layers.items() if uses[id(layer.weight)] == 1}
        if not own:
            raise PlanError(f"{label!r} has no linear layer to quantise (those inside nn.MultiheadAttention are not)")
        new = [name for name in own if layout.is_new(name)]
        if new:
            raise PlanError(f"{new[0]!r} belongs to a new part: quantise pretrained towers only, not fusion or head")
        for name, layer in own.items():
            swapped = make(layer)
            swapped.bias = layer.bias
            model.set_submodule(name, swapped.requires_grad_(False).train(layer.training))
