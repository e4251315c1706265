"""Which layers compute as an `nn.Linear` does: it, subclasses that keep its forward, or whose own gives the same.

Falcon's linear layer has a forward of its own that is a plain product; a class that scales or masks has not. A model
without weights shows it in one layer of each class, with values made up for it.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

ROWS = 2
TOLERANCE = {4: 1e-5, 8: 1e-10}  # relative, by bytes of a number
COARSE = 1e-2  # for 16 bits
WRONG_USE = (TypeError, ValueError, RuntimeError, AttributeError, LookupError)


def computing_as_linear(layers: Iterable[nn.Module]) -> set[int]:
    """Give the ids of those that give x·Wᵀ + b for a weight W and a bias b that they hold, whatever the mode."""
    from torch import nn

    found: set[int] = set()
    tried: dict[type, bool] = {}  # of layers without values
    for layer in layers:
        if not isinstance(layer, nn.Linear) or "forward" in vars(layer) or not _holds_weight(layer):
            continue
        kind = type(layer)
        same = kind.forward is nn.Linear.forward
        if not same and layer.weight.is_meta:
            same = tried[kind] if kind in tried else tried.setdefault(kind, _gives_the_product(_with_values(layer)))
        elif not same:  # what it counts in buffers is not ours to change
            same = _gives_the_product(copy.deepcopy(layer) if any(True for _ in layer.buffers()) else layer)
        if same:
            found.add(id(layer))
    return found


def _holds_weight(layer: nn.Module) -> bool:
    return vars(layer)["_parameters"].get("weight") is not None


def _with_values(layer: nn.Linear) -> nn.Linear:
    """Copy a layer from `meta`, with random values."""
    import torch

    made = copy.deepcopy(layer).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*made.parameters(), *made.buffers()]:
            if tensor.is_floating_point():
                tensor.copy_(torch.randn(tensor.shape, generator=generator))
    return made


def _gives_the_product(layer: nn.Linear) -> bool:
    """Compare a layer's own forward with the product, on random inputs."""
    import torch
    from torch.nn.functional import linear

    weight, was_training = layer.weight, layer.training
    inputs = torch.randn(ROWS, weight.shape[1], generator=torch.Generator().manual_seed(0)).to(weight)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            expected = linear(inputs, weight, layer.bias)
            outputs = [layer.train(mode).forward(inputs) for mode in (True, False)]
            bound = TOLERANCE.get(weight.dtype.itemsize, COARSE) * float(expected.norm())
            return bound > 0 and all(float((output - expected).norm()) <= bound for output in outputs)
    except WRONG_USE:
        return False
    finally:
        layer.train(was_training)
