"""rslora — LoRA whose scale does not shrink as fast as its rank grows.

What: y = Wx + (alpha/√r)·B·A·x instead of alpha/r. With alpha/r, outputs and gradients of an adapter shrink as its
rank grows; with alpha/√r they keep their size. The defaults r=64, alpha=16 give the scale 2 of plain LoRA's r=8.
Why it helps: higher ranks do learn more than lower ones, and a learning rate found at one rank fits another.
What it costs: nothing against LoRA of the same rank; r=64 has 8 times the weights of r=8, so gradients, optimizer
state and saved files grow with it. When not to use it: at small ranks, where it is LoRA with a larger alpha.
Paper: Kalajdzievski, A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA, 2023,
https://arxiv.org/abs/2312.03732

`alpha` does not follow r: that the scale falls as 1/√r is the method. Options under PEFT's names are those of `lora`,
whose card explains them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.methods.weights.lora import adapt_low_rank
from strategies.options import Count, Counts, Names, Numbers, Rate, Rows, Share, added
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Rslora(Strategy):
    """Low-rank adapters scaled by alpha/√r on the layers of `scope` with the given `roles` (default: query, value)."""

    name: ClassVar[str] = "rslora"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES

    r: Count = 64
    alpha: Count = 16
    dropout: Share = 0.0
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    rank_pattern: Counts | None = added(None)
    alpha_pattern: Counts | None = added(None)
    exclude_modules: Names | None = added(None)
    layers_to_transform: Numbers | None = added(None)
    modules_to_save: Names | None = added(None)
    trainable_token_indices: Numbers | Rows | None = added(None)
    scope: str | None = None
    lr: Rate = 1e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject adapters tower by tower."""
        adapt_low_rank(self, model, context, use_rslora=True)
