"""Swap linear layers for quantised ones, in memory: shared by `nf4`, `fp4` and `int8`.

transformers' own replacement builds empty weights and accelerate's needs a GPU, so this walks the model itself:
each linear layer of a scope becomes a bitsandbytes layer that still holds the float weight, and bitsandbytes
quantises it when the model moves to its device (CPU counts). GPT-2's `Conv1D` is turned into a linear layer before.
Left alone: everything that is no linear layer (embeddings, norms, convolutions, fused weights of experts), and the
linear layers that `quantisable.py` names; `Tuned.describe` lists them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Literal, cast

from strategies.errors import PlanError
from strategies.execution.engine import torch_dtype
from strategies.layout import BODY
from strategies.methods.numerics.quantisable import Storage, reasons_to_keep, sort_layers, why_kept
from strategies.structure.layers.replaced_layers import take_over
from strategies.structure.linear_layers import conv1d_to_linear

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch import Tensor, nn

    from strategies.protocol import Context, Strategy


# Values of a weight that share a scale. bitsandbytes' CPU kernel unpacks rows that are no multiple of it wrongly (an
# error of 20–40 %, seen in 0.50.2), so narrow layers get the smaller size, and others are left alone.
BLOCK, SMALL_BLOCK = 64, 32
NESTED_BLOCK = 256  # scales that share a scale


def swap_linears(
    strategy: Strategy, model: nn.Module, context: Context, make: Callable[[nn.Linear], nn.Linear], *, multiple: int = 1
) -> None:
    """Replace the linear layers of the strategy's scope by `make(layer)`; a tower without any is an error.

    What stays as it is is left in `context.member_state`. multiple: of which the number of inputs has to be one.
    """
    scope = strategy.scope_name()
    why, owned = reasons_to_keep(model, multiple, scope), context.layout.module_names(model, scope)
    groups = context.layout.groups(model, scope)
    if context.layout.divided and scope in {None, BODY}:  # nobody named these towers: one may have no linear layer
        groups = {BODY: tuple(root for roots in groups.values() for root in roots)}
    whole = Storage()
    for label, prefixes in groups.items():
        storage = sort_layers(model, prefixes, owned, why)
        if not storage.quantised:
            there = f" but {why_kept(storage.kept)}" if storage.kept else ""
            raise PlanError(
                f"{strategy.name}: {label!r} has no linear layer to quantise{there}; name another scope, or leave "
                f"{strategy.name} out"
            )
        new = [name for name in storage.quantised if context.layout.is_new(name)]
        if new:
            raise PlanError(f"{new[0]!r} belongs to a new part: quantise pretrained towers only, not fusion or head")
        for name in storage.quantised:
            _swap(model, name, make)
        whole.add(storage)
    context.member_state[strategy] = whole


def _swap(model: nn.Module, name: str, make: Callable[[nn.Linear], nn.Linear]) -> None:
    """Replace one layer."""
    conv1d_to_linear(model, name)
    layer = cast("nn.Linear", model.get_submodule(name))
    swapped = make(layer)
    take_over(swapped, layer, stored_as=name)
    model.set_submodule(name, swapped)


def to_4bit(layer: nn.Linear, *, quant_type: Literal["nf4", "fp4"], double_quant: bool) -> nn.Linear:
    """Make a 4-bit layer that holds `layer`'s float weight until it moves to a device."""
    import bitsandbytes as bnb

    swapped = bnb.nn.Linear4bit(layer.in_features, layer.out_features, bias=False, quant_type=quant_type, device="meta")
    swapped.weight = bnb.nn.Params4bit(
        layer.weight.detach(),
        requires_grad=False,
        blocksize=SMALL_BLOCK if layer.in_features % BLOCK else BLOCK,
        compress_statistics=double_quant,
        quant_type=quant_type,
        module=swapped,
    )
    # Its CPU kernel repacks the weight in the first evaluation, after which training raises or loses gradients.
    swapped.support_avx512bf16_for_cpu = False
    return swapped  # type: ignore[no-any-return]


def set_compute_dtype(model: nn.Module, precision: str) -> None:
    """Let 4-bit layers compute in the plan's precision; earlier, PEFT would make its adapters in that type."""
    import bitsandbytes as bnb

    for module in model.modules():
        if isinstance(module, bnb.nn.Linear4bit):
            module.compute_dtype = torch_dtype(precision)
            module.compute_type_is_set = True


def simulate_move(model: nn.Module, device: torch.device) -> None:
    """Give quantised layers on `meta` what moving to a device would: packed weights and their statistics, by shape."""
    import bitsandbytes as bnb

    _count_products()
    for module in model.modules():
        weight = vars(module).get("_parameters", {}).get("weight")
        if not isinstance(weight, bnb.nn.Params4bit | bnb.nn.Int8Params) or not weight.is_meta:
            continue
        pack = _packed_4bit if isinstance(weight, bnb.nn.Params4bit) else _packed_8bit
        module.weight = pack(weight, device)


def _count_products() -> None:
    """Tell torch's counter of operations what a product with 4-bit weights takes."""
    import torch
    from torch.utils.flop_counter import flop_registry, register_flop_formula

    product = torch.ops.bitsandbytes.gemm_4bit
    if product not in flop_registry:

        @register_flop_formula(product)
        def _flops(inputs: Sequence[int], _: Any, shape: Sequence[int], *__: Any, **___: Any) -> int:
            return 2 * math.prod(inputs) * shape[0]


def _parameter(values: Tensor, kind: type) -> nn.Parameter:
    """Make a parameter that PEFT, which goes by the name of its class, takes for one of bitsandbytes'."""
    from torch import nn

    parameter = nn.Parameter(values, requires_grad=False)
    parameter.__class__ = type(kind.__name__, (type(parameter),), {})
    return parameter


def _packed_4bit(weight: Any, device: torch.device) -> nn.Parameter:
    """Two values a byte, a scale for each block, scales in 8 bits with scales of their own if nested."""
    import torch
    from bitsandbytes.functional import QuantState

    def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=device)

    scales = math.ceil(weight.numel() / weight.blocksize)
    state = {"shape": weight.shape, "code": empty(16), "blocksize": weight.blocksize, "quant_type": weight.quant_type}
    nested: dict[str, Any] = {}
    if weight.compress_statistics:
        outer = empty(math.ceil(scales / NESTED_BLOCK))
        inner = QuantState(absmax=outer, code=empty(256), blocksize=NESTED_BLOCK, dtype=torch.float32)
        nested = {"offset": empty(), "state2": inner}
    absmax = empty(scales, dtype=torch.uint8 if nested else torch.float32)
    parameter = _parameter(empty(math.ceil(weight.numel() / 2), 1, dtype=torch.uint8), type(weight))
    vars(parameter)["quant_state"] = QuantState(absmax=absmax, dtype=weight.dtype, **state, **nested)
    return parameter


def _packed_8bit(weight: Any, device: torch.device) -> nn.Parameter:
    """A byte for each value, a scale for each row."""
    import torch

    parameter = _parameter(torch.empty(weight.shape, dtype=torch.int8, device=device), type(weight))
    vars(parameter).update(CB=parameter.data, SCB=torch.empty(weight.shape[0], device=device), has_fp16_weights=False)
    return parameter
