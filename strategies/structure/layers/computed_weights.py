"""Weights that a layer computes at each use and does not hold: parametrisations, pruning, older weight norms.

Torch computes such a weight from other parameters, by a property or before each forward pass. What is written to it is
lost, and a layer in its place would not follow it; so methods that change weights have to ask here first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from torch import nn

# The class of torch's hook that computes a weight → what takes it away.
OLDER_HOOKS: Final[Mapping[str, str]] = {
    "WeightNorm": "torch.nn.utils.remove_weight_norm({})",
    "SpectralNorm": "torch.nn.utils.remove_spectral_norm({})",
    "BasePruningMethod": "torch.nn.utils.prune.remove({}, 'weight')",
}


def remedy_for_computed_weight(layer: nn.Module, name: str) -> str | None:
    """Give the line of code that makes the weight of the layer `name` a plain parameter; `None` where it is one.

    layer: has a weight. See https://docs.pytorch.org/tutorials/intermediate/parametrizations.html
    """
    if "weight" in vars(layer)["_parameters"]:
        return None
    place = f"model.get_submodule({name!r})"
    if "parametrizations" in vars(layer)["_modules"]:
        return f"torch.nn.utils.parametrize.remove_parametrizations({place}, 'weight')"
    kinds = [kind.__name__ for hook in vars(layer)["_forward_pre_hooks"].values() for kind in type(hook).__mro__]
    remedy = next((text for kind, text in OLDER_HOOKS.items() if kind in kinds), "{}.weight = nn.Parameter(…)")
    return remedy.format(place)
