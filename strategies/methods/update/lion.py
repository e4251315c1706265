"""lion — the sign of a moving average: one moment instead of two, and steps of one size for every weight.

What: weights −= rate·sign(0.9·m + 0.1·g), then m ← 0.99·m + 0.01·g. Every weight moves by the rate in every update, so
the plan's rates are multiplied by `lr_scale` and weight decay is divided by it, as the paper advises.
Why it helps: 4 bytes of optimizer state per trained weight instead of 8.
What it costs: a rate of its own to find (0.3 was the best of six multiples of AdamW's best rate on the suite's own
model; 0.1 and 1 were worse); noise moves weights as far as signal does, so small batches and late training suffer, and
a rate schedule that ends at zero matters. When not to use it: there is no time to try two or three values of
`lr_scale`; batches are small.
Paper: Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, https://arxiv.org/abs/2302.06675 (rates 3–10
times lower and decay 3–10 times higher than AdamW's)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.methods.update.update_rule import optimizer_by_rule
from strategies.options import Rate, Share
from strategies.protocol import OPTIMIZER, Context, Kind, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor, nn


def sign_of_average(gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> Tensor:
    """Give the sign of the average as the gradient would make it, and keep a slower one."""
    import torch

    if "exp_avg" not in state:
        state["exp_avg"] = torch.zeros_like(gradient)
    average: Tensor = state["exp_avg"]
    direction = average.lerp(gradient, 1 - group["betas"][0]).sign_()
    average.lerp_(gradient, 1 - group["betas"][1])
    return direction


def scale_weight_decay(groups: list[dict[str, Any]], lr_scale: float) -> list[dict[str, Any]]:
    """Divide each group's weight decay by `lr_scale`, so that rate × decay stays what it is with AdamW."""
    return [{**group, "weight_decay": group["weight_decay"] / lr_scale} for group in groups]


@final
@dataclass(frozen=True, kw_only=True)
class Lion(Strategy):
    """Lion, with the plan's rates times `lr_scale`."""

    name: ClassVar[str] = "lion"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({OPTIMIZER})

    beta1: Share = 0.9
    beta2: Share = 0.99
    lr_scale: Rate = 0.3

    def param_groups(self, groups: list[dict[str, Any]], model: nn.Module, context: Context) -> list[dict[str, Any]]:
        """Keep weight decay as strong as with AdamW."""
        del model, context
        return scale_weight_decay(groups, self.lr_scale)

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Take Lion."""
        del make
        return lambda groups: optimizer_by_rule(groups, sign_of_average, betas=(self.beta1, self.beta2))
