"""What PEFT reads back from its files, held against what was trained.

Each adapted layer is given the same random inputs in both models, in 32 bits; everything else is compared value by
value. Over a base in few bits the trained adapter is also put over the float base: there it has to agree as closely as
any other, whatever the rounding of the base moves.
"""

from __future__ import annotations

from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from strategies.errors import PlanError
from strategies.structure.beside.token_rows import is_token_layer
from strategies.structure.layers.random_inputs import random_inputs
from strategies.structure.linear_layers import WAS_CONV1D
from strategies.structure.peft_config import REMEDY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

TOLERANCE: Final = 1e-5  # relative, of a layer's output
TOKENS: Final = 4


def largest_difference(trained: nn.Module, read: nn.Module, layers: Mapping[str, Any]) -> float:
    """Give the largest relative difference of an adapted layer's output; `PlanError` where PEFT has something else.

    read: PEFT's model, made from the files; both models are in evaluation mode. layers: the adapted ones of `trained`.
    """
    model: Any = read
    theirs = model.get_base_model()
    _refuse_bypassed(theirs, layers)
    _compare_unadapted(trained, theirs)
    _compare_rows(trained, theirs)
    return max(_layer_difference(name, layer, theirs.get_submodule(name)) for name, layer in layers.items())


def _layer_difference(name: str, layer: Any, read: Any) -> float:
    """Compare one layer's outputs; what rounding the base moved is told and not refused."""
    import torch

    stored: torch.dtype = read.get_base_layer().weight.dtype
    read = deepcopy(read).float()
    base, plain = layer.get_base_layer(), read.get_base_layer()
    own_inputs = random_inputs(base)
    inputs = own_inputs.to(plain.weight.device, torch.float32)
    expected = read(inputs)
    ours, rounding = deepcopy(layer), 0.0
    other_kind = type(base) is not type(plain) and WAS_CONV1D not in vars(base)
    if other_kind or base.weight.dtype != stored:
        rounding = _relative(layer(own_inputs).to(expected), expected)
        ours.base_layer = deepcopy(plain)
    try:
        found = ours.to(plain.weight.device, torch.float32)(inputs)
    except AttributeError:  # of packed weights
        raise PlanError(
            f"the adapter of {name!r} works on packed weights, not on a float base, which PEFT's file is for; {REMEDY}"
        ) from None
    exact = _relative(found, expected)
    if not exact <= max(TOLERANCE, torch.finfo(stored).eps):  # over 16 bits some of PEFT's methods have 16, too
        raise PlanError(
            f"{name!r} ({type(layer).__name__}) is not the trained one when PEFT reads it back: {exact:.0e} off; "
            f"{REMEDY}"
        )
    return max(rounding, exact)


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm().clamp_min(1e-12))


def _compare_unadapted(trained: nn.Module, read: nn.Module) -> None:
    """Refuse parts without adapters, such as statistics in a tower, that are not those of the fresh base."""
    theirs = dict(_plain_tensors(read))
    for name, tensor in _plain_tensors(trained):
        other = theirs.get(name)
        if other is None or other.shape != tensor.shape or not tensor.is_floating_point():
            continue  # packed into few bits, or turned (`conv1d_to_linear`)
        narrow = min(tensor, other, key=lambda each: each.dtype.itemsize)  # what trains is in 32 bits over a base in 16
        if not other.to(narrow).equal(tensor.to(narrow)):
            raise PlanError(f"{name!r} is another one in the fresh base, and PEFT's file has no place for it; {REMEDY}")


def _compare_rows(trained: nn.Module, read: nn.Module) -> None:
    """Refuse trained rows that PEFT gives other values, or does not put into a layer that shares them."""
    for name, layer in [(name, part) for name, part in trained.named_modules() if is_token_layer(part)]:
        places = dict(read.named_modules(remove_duplicate=False))
        other: Any = places.get(name)
        weight = layer.get_merged_weights(layer.active_adapters)
        if other is None or not other.get_merged_weights(other.active_adapters).to(weight).equal(weight):
            raise PlanError(
                f"the trained rows of {name.rpartition('.')[0]!r} are not the same when PEFT reads them back; {REMEDY}"
            )


def _plain_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give parameters and persistent buffers outside adapted layers, modules that PEFT saves whole by their name."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    adapted = tuple(f"{name}." for name, part in model.named_modules() if isinstance(part, BaseTunerLayer))
    for name, tensor in model.state_dict().items():
        if not name.startswith(adapted) and ".original_module." not in name:
            yield name.replace(".modules_to_save.default.", "."), tensor


def _refuse_bypassed(read: nn.Module, layers: Mapping[str, Any]) -> None:
    """Refuse adapters in a torch encoder layer which takes its fast path: it reads weights and calls no layer."""
    import torch
    from torch import nn

    for outer, part in read.named_modules():
        names = [name for name in layers if name.startswith(f"{outer}.")]
        if not isinstance(part, nn.TransformerEncoderLayer) or not names:
            continue
        called: set[str] = set()
        for name in names:
            layer = read.get_submodule(name)
            layer.forward = partial(_record_call, layer.forward, called, name)  # a hook would close the fast path
        weight = part.norm1.weight
        part(torch.zeros(1, TOKENS, len(weight), device=weight.device, dtype=weight.dtype))
        for name in names:
            vars(read.get_submodule(name)).pop("forward")
            if name not in called:
                raise PlanError(
                    f"PEFT alone passes by the adapter of {name!r}: in evaluation torch's nn.TransformerEncoderLayer "
                    f"reads weights without calling the layers; adapt others (target_modules=[…]), or {REMEDY}"
                )


def _record_call(forward: Any, called: set[str], name: str, *inputs: Any) -> Any:
    """Call a layer and note it."""
    called.add(name)
    return forward(*inputs)
