"""Linear layers whose weight code reads, or which it hands on: packed in few bits they would not do what it expects.

T5 casts to `self.wo.weight.dtype`, Mamba multiplies by `self.dt_proj.weight`: a layer put in their place is passed by,
or gives the type of its packed bytes. Torch's own code is left out, which `uncalled_layers` and `disable_fast_path`
know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from strategies.structure.layers.module_uses import uses_in, words_of
from strategies.structure.layers.source_reader import PARAMETERS, WEIGHT
from strategies.structure.linear_layers import is_conv1d

if TYPE_CHECKING:
    from torch import nn

    from strategies.structure.layers.source_reader import Use

# What reads of a weight tell nothing that a quantised layer would change.
HARMLESS: Final = frozenset({"device", "is_cuda", "is_meta", "requires_grad", "grad", "ndim", "_is_hf_initialized"})


def weight_reads(model: nn.Module) -> dict[str, str]:
    """Give linear layer → the class whose code reads its weight where a forward pass of `model` may come."""
    from torch import nn

    places = {id(module): name for name, module in model.named_modules()}
    linear = {id(part) for part in model.modules() if isinstance(part, nn.Linear) or is_conv1d(part)}
    words = words_of(places[layer] for layer in linear) | {WEIGHT, PARAMETERS}
    found: dict[str, str] = {}
    for owner, use, parts in uses_in(model, words):
        if not _matters(use) or type(owner).__module__.startswith("torch."):
            continue
        for part in parts:
            target = _first_owner(part) if use.asked[:1] == (PARAMETERS,) else part
            if id(target) in linear and target is not owner:
                found.setdefault(places[id(target)], type(owner).__name__)
    return found


def _matters(use: Use) -> bool:
    """Say whether a use would come out otherwise for a layer in few bits."""
    if use.how == "looked at":
        return False
    if use.asked[:1] == (WEIGHT,):
        return use.how != "stored" and HARMLESS.isdisjoint(use.asked[1:2])
    return use.asked[:1] == (PARAMETERS,) or (not use.asked and use.how in {"handed on", "unknown"})


def _first_owner(module: nn.Module) -> nn.Module:
    """Give the module that holds the first parameter, whose type stands for all of them in `next(parameters())`."""
    return next((part for part in module.modules() if any(True for _ in part.parameters(recurse=False))), module)
