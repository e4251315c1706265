"""lora — freeze the weights and train low-rank additions to some linear layers.

What: y = Wx + (alpha/r)·B·A·x with W frozen, A random and B zero, so training starts at the pretrained model.
Why it helps: gradients and optimizer state only for 0.1–2 % of the weights; a file of a few MB per task.
What it costs: activations are kept as in full fine-tuning, and each adapted layer runs two small extra products:
small models do not get faster. Dropout on every adapted layer keeps one more activation each. When not to use
it: the towers need to change a lot, or memory is dominated by activations (use checkpointing).
Paper: Hu et al., 2021, https://arxiv.org/abs/2106.09685
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.adapters import adapt
from strategies.options import Count, Names, Rate, Share
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Lora(Strategy):
    """Low-rank adapters on the layers of `scope` with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "lora"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES

    r: Count = 8
    alpha: Count = 16
    dropout: Share = 0.0
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 1e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject adapters tower by tower."""
        import peft

        config = peft.LoraConfig(r=self.r, lora_alpha=self.alpha, lora_dropout=self.dropout)
        adapt(self, model, context, config, convolutions=True)
