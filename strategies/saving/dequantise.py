"""Turn layers that hold their weights in few bits back into plain float ones, adapters included.

A layer of an adapted model is linear in its input once dropout is off, so its outputs on the unit vectors are its
weight. That holds for every adapter that can be merged and every storage, and rounds nothing again: merging into 4 bits
moves outputs by far more (`Tuned.merge` reports by how much).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strategies.quiet import quiet
from strategies.structure.layers.half_precision import is_half
from strategies.structure.layers.replaced_layers import give_back

if TYPE_CHECKING:
    from torch import nn

ROWS = 512  # unit vectors at a time


@quiet()
def to_float(model: nn.Module) -> int:
    """Replace every quantised linear layer, its adapter with it, by an equal `nn.Linear`; gives their number.

    In a model whose other weights are in 16 bits they are, too.
    """
    import bitsandbytes as bnb
    from peft.tuners.tuners_utils import BaseTunerLayer

    quantised = bnb.nn.Linear4bit, bnb.nn.Linear8bitLt
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        base = module.get_base_layer() if isinstance(module, BaseTunerLayer) else module
        if isinstance(base, quantised) and not any(name.startswith(f"{outer}.") for outer in found):
            found[name] = base
    half = next((parameter.dtype for parameter in model.parameters() if is_half(parameter)), None)
    for name, base in found.items():
        model.set_submodule(name, _plain(model.get_submodule(name), base).to(half))
    return len(found)


def _plain(layer: nn.Module, base: Any) -> nn.Linear:
    """Read a layer's weight and bias off its outputs, computed in 32 bits where the storage lets us choose."""
    import torch
    from torch import nn

    if "compute_dtype" in vars(base):
        base.compute_dtype = torch.float32
    was_training, device = layer.training, base.weight.device
    plain = nn.Linear(base.in_features, base.out_features, bias=base.bias is not None, device=device)
    with torch.no_grad():
        layer.eval()
        offset = layer(torch.zeros(1, base.in_features, device=device)).float()
        for start in range(0, base.in_features, ROWS):
            units = torch.eye(base.in_features, device=device)[start : start + ROWS]
            plain.weight[:, start : start + ROWS] = (layer(units).float() - offset).T
        if plain.bias is not None:
            plain.bias.copy_(offset[0])
    give_back(plain, base)
    return plain.train(was_training)
