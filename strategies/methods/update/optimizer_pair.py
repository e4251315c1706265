"""Two optimizers that work as one: a method's own for the matrices it is made for, AdamW for all the rest.

`split_groups` marks parameter groups while the model is at hand, `pair_optimizers` makes the optimizers from the marks.
Both share one `state`, and the groups are the same objects, so that whoever sets a rate, forgets a parameter's moments
or counts bytes needs to know nothing of it. The class is made when first asked for, so that planning needs no torch.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn

OWN_GROUP = "own"  # in a parameter group: it belongs to the method's own optimizer


def split_groups(
    groups: list[dict[str, Any]], chosen: Callable[[nn.Parameter], bool], reason: str, **options: Any
) -> list[dict[str, Any]]:
    """Split groups into those of `chosen` parameters, marked and with `options`, and the rest.

    Without any chosen parameter the method would be AdamW under another name: a `PlanError` gives the `reason`.
    """
    split: list[dict[str, Any]] = []
    for group in groups:
        own = [parameter for parameter in group["params"] if chosen(parameter)]
        rest = [parameter for parameter in group["params"] if not chosen(parameter)]
        split += [{**group, **options, "params": own, OWN_GROUP: True}] if own else []
        split += [{**group, "params": rest, OWN_GROUP: False}] if rest else []
    if not any(group[OWN_GROUP] for group in split):
        raise PlanError(reason)
    return split


def is_matrix(parameter: nn.Parameter, shortest: int) -> bool:
    """Say whether a parameter has two dimensions of `shortest` or more each."""
    return parameter.ndim == 2 and min(parameter.shape) >= shortest  # noqa: PLR2004 - rows and columns


def pair_optimizers(
    groups: list[dict[str, Any]],
    make_own: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
    make_default: Callable[[list[dict[str, Any]]], torch.optim.Optimizer],
) -> torch.optim.Optimizer:
    """Make one optimizer of two from marked groups."""
    marked, others = ([group for group in groups if group[OWN_GROUP] is mark] for mark in (True, False))
    parts = [make_own(marked), *([make_default(others)] if others else [])]
    return _combined_class()(parts)


@cache
def _combined_class() -> Callable[..., torch.optim.Optimizer]:
    """Make the class, once."""
    import torch

    class CombinedOptimizer(torch.optim.Optimizer):
        """Optimizers with one state and one list of groups."""

        def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
            super().__init__([group for part in parts for group in part.param_groups], {})
            self.parts = parts
            self._share_state()

        def _share_state(self) -> None:
            """Let the parts work on this object's state and groups."""
            start = 0
            for part in self.parts:
                stop = start + len(part.param_groups)
                part.state, part.param_groups = self.state, self.param_groups[start:stop]
                start = stop

        def step(self, closure: Any = None) -> Any:
            """Let each part take its step."""
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            for part in self.parts:
                part.step()
            return loss

        def load_state_dict(self, state_dict: dict[str, Any]) -> None:
            """Take over a saved state; torch makes new groups and a new state for it."""
            super().load_state_dict(state_dict)
            self._share_state()

    return CombinedOptimizer
