"""Weights that a layer computes at each use and does not hold: parametrisations, pruning, older weight norms.

Torch computes such a weight from other parameters, by a property or before each forward pass. What is written to it is
lost, and a layer in its place would not follow it; so methods that change weights have to ask here first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from strategies.errors import PlanError
from strategies.structure.layers.random_inputs import random_inputs

if TYPE_CHECKING:
    from torch import Tensor, nn

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
    if "parametrizations" in vars(layer)["_modules"]:  # what is left is a parameter only if it requires a gradient
        return f"torch.nn.utils.parametrize.remove_parametrizations({place}.requires_grad_(), 'weight')"
    kinds = [kind.__name__ for hook in vars(layer)["_forward_pre_hooks"].values() for kind in type(hook).__mro__]
    remedy = next((text for kind, text in OLDER_HOOKS.items() if kind in kinds), "{}.weight = nn.Parameter(…)")
    return remedy.format(place)


@contextmanager
def refusing_adapters_that_lose_them(model: nn.Module, names: Iterable[str]) -> Iterator[None]:
    """Surround putting adapters on the layers `names`; refuse those that computed weights do not go with.

    Such an adapter changes the weight in the place where it is computed, or reads it without having it computed.
    """
    layers = {name: model.get_submodule(name) for name in names}
    computed = {name: layer for name, layer in layers.items() if remedy_for_computed_weight(layer, name)}
    computed = {name: layer for name, layer in computed.items() if not any(p.is_meta for p in layer.parameters())}
    before = {name: _outputs(layer, layer) for name, layer in computed.items()}
    with _evaluated(computed.values()):  # in training a spectral norm moves on whenever its weight is read
        yield
    for name, layer in computed.items():
        calls: list[object] = []
        if "parametrizations" in vars(layer)["_modules"]:  # computed wherever it is read
            outputs = _outputs(model.get_submodule(name), layer)
            calls.append(None)
        else:
            handle = layer.register_forward_hook(lambda *_, calls=calls: calls.append(None))
            outputs = _outputs(model.get_submodule(name), layer)
            handle.remove()
        if calls and bool(outputs.allclose(before[name], atol=1e-4, rtol=1e-4)):
            continue
        raise PlanError(
            f"{name!r} computes its weight at each use, which this kind of adapter does not go with; first call "
            f"{remedy_for_computed_weight(layer, name)}, or take lora"
        )


def _outputs(layer: nn.Module, base: nn.Module) -> Tensor:
    """Give a layer's outputs on random inputs that fit `base`, in evaluation."""
    import torch

    with torch.no_grad(), _evaluated([layer]):
        outputs: Tensor = layer(random_inputs(base))
    return outputs


@contextmanager
def _evaluated(layers: Iterable[nn.Module]) -> Iterator[None]:
    """Put layers in evaluation mode within."""
    modes = [(part, part.training) for layer in layers for part in layer.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode
