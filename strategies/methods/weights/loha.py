"""loha — like lora, but the change is the elementwise product of two low-rank matrices.

What: y = (W + (alpha/r)·(A1·B1) ⊙ (A2·B2))·x with W frozen; one factor starts at zero, so training starts at the
pretrained model. The product's rank can reach r², with twice LoRA's trained values at the same r. `alpha` is r unless
given.
Why it helps: changes of higher rank than LoRA's for the same number of values.
What it costs: the change is built as a full matrix per layer and step, in forward and backward: memory and time of
another weight matrix, unlike LoRA; compile breaks its graph at each adapted layer. 4-bit bases are refused. When not
to use it: wide layers with few tokens per batch, where building the matrix outweighs the layer itself.
Paper: Hyeon-Woo et al., FedPara: Low-Rank Hadamard Product, 2021, https://arxiv.org/abs/2108.06098; as adapter: Yeh et
al., Navigating Text-To-Image Customization (LyCORIS), 2023, https://arxiv.org/abs/2309.14859
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.options import Count, Names, Rate, Share
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import adapt
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Loha(Strategy):
    """Hadamard products of low-rank matrices on the layers with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "loha"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES
    follows: ClassVar[Mapping[str, tuple[str, int]]] = {"alpha": ("r", 1)}

    r: Count = 8
    alpha: Count | None = None
    rank_dropout: Share = 0.0
    module_dropout: Share = 0.0
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 3e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject adapters tower by tower."""
        import peft

        config = peft.LoHaConfig(
            r=self.r, alpha=self.alpha, rank_dropout=self.rank_dropout, module_dropout=self.module_dropout,
        )  # fmt: skip
        adapt(self, model, context, config, convolutions=True)
