"""lorafa — LoRA whose A matrices stay at their random start; only B trains.

What: y = Wx + (alpha/r)·B·A·x with W and A frozen, B from zero. A layer's change of weight lies in the r random
directions that A reads.
Why it helps: the backward pass needs A·x (r numbers per token) instead of x, so adapted layers keep almost no
activations of their own (a tiny ViT+BERT with all linear layers adapted kept 71 % of LoRA's bytes at the same rank);
gradients and optimizer state are half of LoRA's at the same rank.
What it costs: less freedom per rank, so r=16, alpha=32 here: as many trained weights (in square layers) and the scale
of `lora`. Dropout keeps its mask in every adapted layer. When not to use it: memory is no problem, or the rank must
be tiny.
Paper: Zhang et al., LoRA-FA: Memory-efficient Low-rank Adaptation for Large Language Models Fine-tuning, 2023,
https://arxiv.org/abs/2308.03303. This is its plain form, with AdamW on B; PEFT's own optimizer for it corrects B's
gradient by (A·Aᵀ)⁻¹ in addition, and A starts uniformly as in `lora`, not normally distributed.

`alpha` is 2·r unless given. Options under PEFT's names are those of `lora`, whose card explains them.
"""

from __future__ import annotations

from collections.abc import Mapping
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
class LoraFa(Strategy):
    """Low-rank adapters on the layers of `scope`, of which only B trains."""

    name: ClassVar[str] = "lorafa"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES
    follows: ClassVar[Mapping[str, tuple[str, int]]] = {"alpha": ("r", 2)}

    r: Count = 16
    alpha: Count | None = None
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
        """Freeze the scope and inject adapters tower by tower, then freeze every A."""
        for tuner in adapt_low_rank(self, model, context):
            for name, parameter in tuner.named_parameters():
                if ".lora_A." in name:
                    parameter.requires_grad_(False)
