"""olora — LoRA that starts at the first directions of a QR decomposition of each weight.

What: W = Q·R; B is the first r columns of Q (orthonormal), A the first r rows of R, and W − s·B·A is frozen, so that
training starts at the pretrained model.
Why it helps: B starts orthonormal and A at the weight's own size, so the loss falls faster than from a random A and a
zero B; QR costs a fraction of the singular value decomposition of `pissa`.
What it costs: a decomposition per adapted layer at the start. The frozen weights change, so the adapters fit only
this base; a saved model computes them again. Which directions come first depends on the order of the inputs, not on
how much they matter. When not to use it: adapters should be swapped over one base, or `pissa` is affordable.
Paper: Büyükakyüz, OLoRA: Orthonormal Low-Rank Adaptation of Large Language Models, 2024,
https://arxiv.org/abs/2406.01775; alpha = r keeps the scale at 1. Convolutions are not adapted.

Options under PEFT's names are those of `lora`, whose card explains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.methods.weights.lora import adapt_low_rank, check_splits, float_weights
from strategies.options import Count, Counts, Names, Numbers, Rate, Rows, Share, added
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import on_meta
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Olora(Strategy):
    """Orthonormally started adapters on the layers of `scope` with the given `roles` (default: query, value)."""

    name: ClassVar[str] = "olora"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES
    follows: ClassVar[Mapping[str, tuple[str, int]]] = {"alpha": ("r", 1)}

    r: Count = 8
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
    lr: Rate = 5e-4
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and split its weights tower by tower, before anything is quantised."""
        check_splits(self, model, context)
        with float_weights(model):
            adapt_low_rank(
                self, model, context, convolutions=False, init_lora_weights=True if on_meta(model) else "olora"
            )
