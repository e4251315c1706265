"""16-bit weights that train are kept in 32 bits, as small updates to 16 bits round to nothing; the rest stays as it is.

A module whose own weights were cast still takes and gives what it did: its inputs are cast on the way in, its outputs
on the way out. Adapters are cast by PEFT itself, whose layers do the same. `restore` undoes it once nothing trains.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch
    from peft.tuners.tuners_utils import BaseTuner
    from torch import Tensor, nn

HALF_BYTES = 2  # of a 16-bit number


def is_half(tensor: Tensor) -> bool:
    """Say whether a tensor holds 16-bit floats."""
    return tensor.is_floating_point() and tensor.dtype.itemsize == HALF_BYTES


def adapters_in_float32(tuner: BaseTuner) -> None:
    """Cast what PEFT added to 16-bit layers to 32 bits, as its own `get_peft_model` does.

    That replaces parameters, and all of them would train afterwards.
    """
    trains = {name: parameter.requires_grad for name, parameter in tuner.named_parameters()}
    for adapter in tuner.active_adapters:
        tuner._cast_adapter_dtype(adapter, autocast_adapter_dtype=True)  # noqa: SLF001 - as its PeftModel calls it
    for name, parameter in tuner.named_parameters():
        parameter.requires_grad_(trains[name])


def train_in_float32(model: nn.Module, names: Iterable[str]) -> None:
    """Cast those of the parameters `names` that train in 16 bits, with what else their modules own.

    A module that also owns a frozen 16-bit matrix stays as it is: to cast that one would double the model.
    """
    named = dict(model.named_parameters())
    training = {id(named[name]) for name in names if named[name].requires_grad and is_half(named[name])}
    owners = [module for module in model.modules() if training & set(map(id, module.parameters(recurse=False)))]
    mixed = {id(part) for module in owners if _owns_frozen_matrix(module, training) for part in _own(module)}
    halves = [(module, next(part.dtype for part in _own(module) if id(part) in training)) for module in owners]
    for module, half in halves:
        if not mixed & set(map(id, _own(module))):
            for tensor in filter(is_half, _own(module)):
                tensor.data = tensor.data.float()
            compute_in_float32(module, half)


def compute_in_float32(module: nn.Module, half: torch.dtype, *, inputs: bool = True) -> None:
    """Let a module whose weights are in 32 bits take and give what it did with weights of type `half`.

    `inputs`: it needs them in 32 bits.
    """
    module.forward = partial(_in_float32, module.forward, half, inputs)


def restore(model: nn.Module) -> None:
    """Give modules that were cast their 16 bits and their own `forward` back."""
    for module in model.modules():
        forward = vars(module).get("forward")
        if not isinstance(forward, partial) or forward.func is not _in_float32:
            continue
        inner, half, _ = forward.args
        del module.forward
        if getattr(inner, "__func__", None) is not type(module).forward:
            module.forward = inner  # somebody else's, which was there before
        for tensor in _own(module):
            if tensor.is_floating_point():
                tensor.data = tensor.data.to(half)


def _own(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]


def _owns_frozen_matrix(module: nn.Module, training: set[int]) -> bool:
    return any(
        is_half(part) and part.ndim > 1 and id(part) not in training for part in module.parameters(recurse=False)
    )


def _in_float32(forward: Callable[..., Any], half: torch.dtype, cast: bool, *arguments: Any, **options: Any) -> Any:
    """Run `forward` on inputs in 32 bits; outputs get the inputs' type, or `half` where those are no floats."""
    import torch
    from torch.utils._pytree import tree_flatten, tree_map

    def to(dtype: torch.dtype, value: Any) -> Any:
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    tensors = (value for value in tree_flatten((arguments, options))[0] if isinstance(value, torch.Tensor))
    given = next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), half)
    if cast:
        arguments, options = tree_map(partial(to, torch.float32), (arguments, options))
    return tree_map(partial(to, given), forward(*arguments, **options))
