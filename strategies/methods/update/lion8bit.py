"""lion8bit — Lion whose one moment is kept in 8 bits.

What: bitsandbytes' Lion8bit: the update of `lion`, the average stored as codes of 8 bits with one scale per block of
256 values. Tensors of fewer than `min_8bit_size` values keep 32 bits.
Why it helps: 1 byte of optimizer state per trained weight, an eighth of AdamW's.
What it costs: Lion's own search for a rate, and averages near zero lose their sign to rounding, which costs such a
weight a whole step in some direction (after 20 updates of a small network the weights were 38 % of the way travelled
from those of 32 bits, the loss 0.2 %); the waits between tensors are those of `adamw8bit`. When not to use it: where
`lion` is not good, or few weights train (adapters).
Paper: Chen et al., Symbolic Discovery of Optimization Algorithms, 2023, https://arxiv.org/abs/2302.06675; Dettmers et
al., 8-bit Optimizers via Block-wise Quantization, 2021, https://arxiv.org/abs/2110.02861
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.methods.update.lion import scale_weight_decay
from strategies.options import Count, Rate, Share
from strategies.protocol import OPTIMIZER, Context, Kind, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Lion8bit(Strategy):
    """Lion in 8 bits, with the plan's rates times `lr_scale`."""

    name: ClassVar[str] = "lion8bit"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({OPTIMIZER})
    packages: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    trial: ClassVar[Mapping[str, Any]] = {"min_8bit_size": 256}

    beta1: Share = 0.9
    beta2: Share = 0.99
    min_8bit_size: Count = 4096
    lr_scale: Rate = 0.3

    def param_groups(self, groups: list[dict[str, Any]], model: nn.Module, context: Context) -> list[dict[str, Any]]:
        """Keep weight decay as strong as with AdamW."""
        del model, context
        return scale_weight_decay(groups, self.lr_scale)

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Take Lion with an 8-bit moment."""
        del make

        def lion(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
            import bitsandbytes

            betas = (self.beta1, self.beta2)
            optimizer: torch.optim.Optimizer = bitsandbytes.optim.Lion8bit(
                groups, betas=betas, min_8bit_size=self.min_8bit_size
            )
            return optimizer

        return lion
