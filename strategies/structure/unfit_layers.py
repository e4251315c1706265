"""Layers that cannot have an adapter, and why: it would be passed over there, or break what the model computes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from strategies.structure.direct_reads import direct_reads

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

# How a weight is read → what that means for an adapter; "elsewhere" is left to whoever trains there.
READS: Final = {
    "uncalled": "its weight is read by {where}, which does not call it",
    "changed": "its weight is changed in place by {where}",
    "fused": "its weight is read by {where} where a fused kernel runs",
}
IN_ATTENTION: Final = "it lies in nn.MultiheadAttention, which reads its weights without calling it"
SHARED: Final = "it stands in several places of the model and an adapter would reach one"
OWN_FORWARD: Final = "it is a {kind}, whose forward does not make (…, {outputs}) of (…, {inputs})"
TRIED_SHAPES: Final = ((2,), (2, 3))  # of inputs, without their features


def unfit_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> tuple[dict[str, str], dict[str, str]]:
    """Give name → reason for those of `layers` around which no adapter may be, and for those not to take unasked.

    The latter are computed from their weights on machines with the right kernels, and called on others.
    """
    found: dict[str, str] = {}
    fused: dict[str, str] = {}
    for name, read in direct_reads(model).items():
        kinds = fused if read.kind == "fused" else found
        if name in layers and read.kind in READS:
            kinds[name] = READS[read.kind].format(where=read.where)
    found |= dict.fromkeys((name for name in _in_attention(model) if name in layers), IN_ATTENTION)
    places = Counter(id(module) for _, module in model.named_modules(remove_duplicate=False))
    found |= {name: SHARED for name, layer in layers.items() if places[id(layer)] > 1}
    return found | _strange(layers), {name: why for name, why in fused.items() if name not in found}


def _in_attention(model: nn.Module) -> Iterable[str]:
    """Name what lies in torch's own attention layers."""
    from torch import nn

    for owner, part in model.named_modules():
        if isinstance(part, nn.MultiheadAttention):
            yield from (f"{owner}.{child}".lstrip(".") for child, _ in part.named_modules() if child)


def _strange(layers: Mapping[str, nn.Module]) -> dict[str, str]:
    """Give name → reason for subclasses of `nn.Linear` whose own forward is not what adapters take it for."""
    from torch import nn

    tried: dict[tuple[type, int, int], bool] = {}
    found = {}
    for name, layer in layers.items():
        if not isinstance(layer, nn.Linear) or type(layer).forward is nn.Linear.forward or _quantised(layer):
            continue
        key = (type(layer), layer.in_features, layer.out_features)
        if key not in tried:
            tried[key] = _is_linear(layer)
        if not tried[key]:
            sizes = {"inputs": layer.in_features, "outputs": layer.out_features}
            found[name] = OWN_FORWARD.format(kind=type(layer).__name__, **sizes)
    return found


def _quantised(layer: nn.Module) -> bool:
    return type(layer).__module__.startswith("bitsandbytes.")


def _is_linear(layer: nn.Linear) -> bool:
    """Try a layer's forward on empty tensors: one tensor with its outputs must come back."""
    import torch

    state = {**dict(layer.named_parameters()), **dict(layer.named_buffers())}
    empty = {name: torch.empty_like(value, device="meta") for name, value in state.items()}
    for shape in TRIED_SHAPES:
        inputs = torch.empty(*shape, layer.in_features, dtype=layer.weight.dtype, device="meta")
        try:
            with torch.no_grad():
                outputs = torch.func.functional_call(layer, empty, (inputs,))
        except (RuntimeError, TypeError, ValueError, NotImplementedError, AttributeError, LookupError):
            continue
        if isinstance(outputs, torch.Tensor) and outputs.shape == (*shape, layer.out_features):
            return True
    return False
