"""An optimizer from one function that gives a tensor's direction: weights −= rate · direction, after decoupled decay.

Shared by `lion`, `galore` and `apollo`. State is made when a tensor's first gradient comes, so that parameters may
rest, be forgotten and join later. The class is made when first asked for, so that planning needs no torch.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor


class Rule(Protocol):
    """Gives the direction of one tensor's update, and keeps in `state` what it needs next time.

    `state` holds `step` (from 1) and `number` (the tensor's place among all); `group` the method's options.
    """

    def __call__(self, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
        """Give a tensor of the gradient's shape."""


def optimizer_by_rule(groups: list[dict[str, Any]], rule: Rule, **defaults: Any) -> torch.optim.Optimizer:
    """Make an optimizer; `defaults` are options of groups that lack them."""
    return _optimizer_class()(groups, rule, {"weight_decay": 0.0, **defaults})


def moments(gradient: Tensor, state: dict[str, Any], betas: tuple[float, float], eps: float) -> Tensor:
    """Update Adam's two moments in `state` and give m̂ / (√v̂ + eps)."""
    import torch

    for name in ("exp_avg", "exp_avg_sq"):
        if name not in state:
            state[name] = torch.zeros_like(gradient)
    first, second, step = state["exp_avg"], state["exp_avg_sq"], state["step"]
    first.lerp_(gradient, 1 - betas[0])
    second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    denominator = second.div(1 - betas[1] ** step).sqrt_().add_(eps)
    direction: Tensor = first.div(1 - betas[0] ** step).div_(denominator)
    return direction


@cache
def _optimizer_class() -> Callable[..., torch.optim.Optimizer]:
    """Make the class, once."""
    import torch

    class RuleOptimizer(torch.optim.Optimizer):
        """Decoupled weight decay, then the rule's direction times the rate."""

        def __init__(self, groups: list[dict[str, Any]], rule: Rule, defaults: dict[str, Any]) -> None:
            super().__init__(groups, defaults)
            self.rule = rule
            self.positions = {
                p: place for place, p in enumerate(p for group in self.param_groups for p in group["params"])
            }

        @torch.no_grad()
        def step(self, closure: Any = None) -> Any:
            """Update every parameter that has a gradient."""
            loss = None
            if closure is not None:
                with torch.enable_grad():
                    loss = closure()
            every = [(group, parameter) for group in self.param_groups for parameter in group["params"]]
            for group, parameter in every:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                state["number"], state["step"] = self.positions[parameter], state.get("step", 0) + 1
                direction = self.rule(parameter.grad, state, group)
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(direction, alpha=-group["lr"])
            return loss

    return RuleOptimizer
