"""Turn an adapted model into a plain one, and say by how much that changed it.

An adapter that is linear in its layer's input can be added to the layer's weight; afterwards the model needs neither
this package nor PEFT. In 32 bits nothing moves but the last digits. In 4 and 8 bits the sum is rounded again, so every
merge reports its drift: evaluate after merging, not only before.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.quiet import quiet
from strategies.structure.beside.token_rows import is_token_layer, merge_rows
from strategies.structure.layers.computed_weights import remedy_for_computed_weight
from strategies.structure.layers.half_precision import restore
from strategies.structure.layers.random_inputs import random_inputs
from strategies.structure.layers.read_elsewhere import warn_of_reads
from strategies.structure.layers.stand_ins import hand_over_hooks, without_hooks
from strategies.structure.linear_layers import linear_to_conv1d

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from torch import Tensor, nn

NOT_IMPLEMENTED = "PEFT has not implemented it"
# Relative change of a layer's outputs that adding an adapter to a weight of this type may make: some units in the last
# place; GPUs may round the factors of float32 products to 10 bits of mantissa (TF32).
ROUNDING = {"torch.float64": 1e-9, "torch.float32": 1e-4, "torch.bfloat16": 3e-2, "torch.float16": 5e-3}
ROUNDED_PRODUCTS = 5e-3


@dataclass(frozen=True)
class Merged:
    """What a merge did.

    `layer_drift` is the largest relative change ‖y' − y‖/‖y‖ of an adapted layer's output y on random inputs, at
    `worst_layer`; `output_drift` the largest absolute change of the model's outputs, where those were given.
    """

    layers: int
    layer_drift: float
    worst_layer: str
    output_drift: float | None = None

    def __str__(self) -> str:
        if not self.layers:
            return "nothing to merge: the plan adds no layers"
        text = f"{self.layers} layers merged; worst relative drift {self.layer_drift:.1e} at {self.worst_layer}"
        return text if self.output_drift is None else f"{text}; outputs moved by at most {self.output_drift:.1e}"


@quiet()
def merge_adapters(model: nn.Module, outputs: Callable[[nn.Module], Tensor] | None = None) -> Merged:
    """Merge every PEFT layer of `model` in place, and compare `outputs(model)` before and after where it is given.

    `PlanError` (and nothing changed) when a layer cannot be merged.
    """
    before = None if outputs is None else outputs(model)
    merged = _merge_layers(model)
    if outputs is None or before is None:
        return merged
    return dataclasses.replace(merged, output_drift=float((outputs(model) - before).abs().max()))


def settle(model: nn.Module, weights: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Leave parameters with the values beside them, in the types that the model's modules were loaded in."""
    import torch

    with torch.no_grad():
        for parameter, values in weights:
            parameter.copy_(values)
    restore(model)


def _merge_layers(model: nn.Module) -> Merged:
    import torch
    from peft.tuners.tuners_utils import BaseTunerLayer

    parts = {name: part for name, part in model.named_modules() if isinstance(part, BaseTunerLayer)}
    layers = {name: part for name, part in parts.items() if not is_token_layer(part)}
    refuse_bottlenecks(model)
    refuse_computed(layers)
    refuse_shared(model, layers)
    warn_of_reads(model, layers, "merging", "merge(outputs=lambda model: …) says by how much")
    was_training = model.training
    model.eval()  # dropout would count as drift
    try:
        with torch.no_grad(), warnings.catch_warnings(), without_hooks(layers.values()):
            warnings.filterwarnings("ignore", message="Merge .* module to .-bit")  # said below, in numbers
            rehearse(layers)
            drifts = {name: merge_drift(layer) for name, layer in layers.items()}
    finally:
        model.train(was_training)
    for name, layer in layers.items():
        hand_over_hooks(layer, layer.get_base_layer())
        model.set_submodule(name, layer.get_base_layer())
    linear_to_conv1d(model)
    merge_rows(model)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point() or parameter.is_complex())
    worst = max(drifts, key=lambda name: drifts[name], default="")
    return Merged(layers=len(drifts), layer_drift=drifts.get(worst, 0.0), worst_layer=worst)


def merge_drift(layer: Any) -> float:
    """Merge one layer, and give the relative change ‖y' − y‖/‖y‖ of its output y on random inputs."""
    inputs = random_inputs(layer.get_base_layer())
    before = layer(inputs)
    layer.merge(safe_merge=True)
    return float((layer(inputs) - before).norm() / before.norm().clamp_min(1e-12))


def rehearse(layers: Mapping[str, Any]) -> None:
    """Merge copies first, so that what cannot be merged is found before anything changes.

    One of each kind of layer in few bits, and each float one, whose drift has to be rounding.
    """
    kinds = {(type(layer), type(layer.get_base_layer())): name for name, layer in layers.items()}
    names = [name for name, layer in layers.items() if layer.get_base_layer().weight.is_floating_point()]
    for name in dict.fromkeys((*kinds.values(), *names)):
        layer = layers[name]
        try:
            drift = merge_drift(copy.deepcopy(layer))
        except (NotImplementedError, AttributeError, ValueError, TypeError, RuntimeError) as problem:
            kind = type(layer).__name__
            raise PlanError(f"{name!r} ({kind}) cannot be merged: {str(problem) or NOT_IMPLEMENTED}") from None
        most = largest_rounding(layer.get_base_layer().weight)
        if not drift <= most:
            raise PlanError(
                f"{name!r} cannot be merged: its output would change by {drift:.1e} of its size, where rounding "
                f"explains {most:.0e}; strategies.load keeps the adapter beside the layer"
            )


def largest_rounding(weight: Tensor) -> float:
    """Give the relative change of outputs that rounding a sum to the weight's type explains; few bits: any."""
    import torch

    if weight.is_cuda and weight.dtype == torch.float32:
        return ROUNDED_PRODUCTS
    return ROUNDING.get(str(weight.dtype), float("inf"))


def refuse_computed(layers: Mapping[str, Any]) -> None:
    """Refuse an adapter on a layer that computes its weight at each use: what is added to it would be lost."""
    for name, layer in layers.items():
        remedy = remedy_for_computed_weight(layer.get_base_layer(), f"{name}.base_layer")
        if remedy is not None:
            raise PlanError(f"{name!r} cannot be merged: its weight is computed at each use; first call {remedy}")


def refuse_shared(model: nn.Module, layers: Mapping[str, Any]) -> None:
    """Refuse an adapter on a weight that other parts use, too: merging would change them."""
    uses = Counter(id(p) for module in model.modules() for p in module.parameters(recurse=False))
    for name, layer in layers.items():
        if uses[id(layer.get_base_layer().weight)] > 1:
            raise PlanError(
                f"{name!r} cannot be merged: other layers use its weight, too; strategies.load keeps the adapter "
                "beside it"
            )


def refuse_bottlenecks(model: nn.Module) -> None:
    """Refuse a model with adapters that are not linear in their input."""
    for name, part in model.named_modules():
        if type(part).__name__.endswith("BottleneckAdapter"):
            raise PlanError(
                f"{name!r} holds a bottleneck adapter: it is not linear, so no weight can stand for it; "
                "strategies.load keeps it"
            )
