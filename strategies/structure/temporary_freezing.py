"""Parameters that are frozen for a part of the training: shared by `progressive_freezing` and `lisa`.

What may train is marked so when the plan is applied, so that all of it is saved; later, freezing is switched from
update to update. A frozen parameter has no gradient, so that optimizers skip it, weight decay included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn

    from strategies.protocol import State


def trainable(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Keep the names of parameters that train."""
    return [name for name in names if model.get_parameter(name).requires_grad]


def freeze(state: State, names: Iterable[str]) -> None:
    """Stop parameters from training, without gradient and without the optimizer's memory of them."""
    for name in names:
        parameter = state.model.get_parameter(name)
        parameter.requires_grad_(False)
        parameter.grad = None
        state.optimizer.state.pop(parameter, None)


def unfreeze(state: State, names: Iterable[str]) -> None:
    """Let parameters train again."""
    for name in names:
        state.model.get_parameter(name).requires_grad_(True)
