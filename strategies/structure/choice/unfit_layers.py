"""Layers that cannot have an adapter, and why: it would be passed over there, or break what the model computes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from strategies.structure.choice.direct_reads import direct_reads
from strategies.structure.choice.held_elsewhere import held_elsewhere

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import nn

# How a weight is read → what that means for an adapter.
READS: Final = {
    "uncalled": "its weight is read by {where}, which does not call it",
    "changed": "its weight is changed in place by {where}",
    "fused": "its weight is read by {where} where a fused kernel runs",
    "elsewhere": "adapted where it is called; {where} also reads its weight, which the adapter does not change",
}
IN_ATTENTION: Final = "it lies in nn.MultiheadAttention, which reads its weights without calling it"
SHARED: Final = "it stands in several places of the model and an adapter would reach one"
HELD: Final = "{where} holds it, too, outside the modules, which an adapter would not reach (nn.ModuleList would)"
OWN_FORWARD: Final = "it is a {kind}, whose forward does not make (…, {outputs}) of (…, {inputs})"
TRIED_SHAPES: Final = ((2,), (2, 3))  # of inputs, without their features


class Unfit(NamedTuple):
    """Name → what is to be said of a layer: which must not have an adapter, which only if asked for, which may."""

    never: dict[str, str]
    unasked: dict[str, str]
    read: dict[str, str]


def unfit_layers(model: nn.Module, layers: Mapping[str, nn.Module]) -> Unfit:
    """Sort out those of `layers` around which an adapter would be passed over, or would break the model.

    Those not to be chosen unasked are called on some machines, and computed from their weights where kernels can.
    """
    found = Unfit({}, {}, {})
    kinds = {"fused": found.unasked, "elsewhere": found.read}
    for name, read in direct_reads(model).items():
        if name in layers:
            kinds.get(read.kind, found.never)[name] = READS[read.kind].format(where=read.where)
            found.read[name] = READS["elsewhere"].format(where=read.where)
    found.never.update(dict.fromkeys((name for name in _in_attention(model) if name in layers), IN_ATTENTION))
    places = Counter(id(child) for part in model.modules() for child in vars(part)["_modules"].values())
    found.never.update({name: SHARED for name, layer in layers.items() if places[id(layer)] > 1})
    held = {name: where for name, where in held_elsewhere(model).items() if name in layers}
    found.never.update({name: HELD.format(where=where) for name, where in held.items()})
    found.never.update(_strange(layers))
    return found


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
    return any(kind.__module__.startswith("bitsandbytes.") for kind in type(layer).__mro__)


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
        except (RuntimeError, TypeError, ValueError, AssertionError, AttributeError, LookupError):
            continue
        if isinstance(outputs, torch.Tensor) and outputs.shape == (*shape, layer.out_features):
            return True
    return False
