"""Stop parameters from training, or let only some of a scope train: shared by everything that freezes."""

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from strategies.protocol import Context


FRONT_END = "_requires_grad"  # on a front end that asks for gradients of its input, so that what trains gets some


def is_vector(parameter: nn.Parameter) -> bool:
    """Say whether all but one of a parameter's dimensions are 1: the shape of biases and of norms' scales."""
    return parameter.ndim > 0 and parameter.numel() == max(parameter.shape)


def freeze_parameters(model: nn.Module, names: Iterable[str]) -> None:
    """Stop the named parameters from training."""
    for name in names:
        model.get_parameter(name).requires_grad_(False)


def freeze_batch_norms(modules: Iterable[nn.Module]) -> None:
    """Keep the batch norms among `modules` without anything that trains in eval mode, whatever `train()` says.

    Speech models' front ends are told to build no graph, as transformers' `freeze_feature_encoder` does.
    """
    from torch.nn.modules.batchnorm import _BatchNorm

    for module in modules:
        if any(parameter.requires_grad for parameter in module.parameters()):
            continue
        if isinstance(module, _BatchNorm):
            keep_in_eval(module)
        if FRONT_END in vars(module):
            vars(module)[FRONT_END] = False


def keep_in_eval(module: nn.Module) -> None:
    """Keep `module` itself (not what is in it) in eval mode, whatever `train()` says."""
    module.train = MethodType(_eval_only, module)  # type: ignore[method-assign]
    module.eval()


def _eval_only(module: nn.Module, mode: bool = True) -> nn.Module:
    """Stand in for `module.train`."""
    del mode
    return type(module).train(module, mode=False)


def train_only(model: nn.Module, context: Context, scope: str | None, chosen: Iterable[str]) -> None:
    """Of the parameters in `scope` let only the `chosen` ones train; new parts (fusion, head) keep as they are."""
    kept = {name for name in context.layout.parameter_names(model, scope) if not context.layout.is_new(name)}
    trained = {name for name in kept if model.get_parameter(name).requires_grad}  # what the model keeps frozen stays so
    freeze_parameters(model, kept)
    for name in trained & set(chosen):
        model.get_parameter(name).requires_grad_(True)
    freeze_batch_norms(map(model.get_submodule, context.layout.module_names(model, scope)))
