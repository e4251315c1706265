"""pissa — LoRA on the largest singular values of each weight, the rest frozen.

What: W = W_res + s·B·A, where B·A holds the r largest singular values and vectors of W and trains, and W_res, the
rest, is frozen. `niter` = 0 computes them exactly, more is the number of rounds of a randomised approximation.
Why it helps: training starts in the directions that matter most, so the loss falls faster than from a random A and a
zero B. On a quantised base only the rest, which has no large values, is rounded: the error gets smaller.
What it costs: one singular value decomposition per adapted layer at the start. The frozen weights change, so the
adapters fit only this base; a saved model computes the rest again (with `niter` > 0 from the same random numbers,
which another torch version may draw differently). When not to use it: adapters should be swapped over one base.
Paper: Meng et al., PiSSA: Principal Singular Values and Singular Vectors Adaptation, 2024,
https://arxiv.org/abs/2404.02948; from it alpha = r, so that the scale is 1. Convolutions are not adapted.

Options under PEFT's names are those of `lora`, whose card explains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.methods.weights.lora import adapt_low_rank, check_splits, float_weights
from strategies.options import Count, Counts, Names, Natural, Numbers, Rate, Rows, Share, added
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import on_meta
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Pissa(Strategy):
    """Principal parts of the layers of `scope` with the given `roles` (default: query, value) train, the rest not."""

    name: ClassVar[str] = "pissa"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES
    follows: ClassVar[Mapping[str, tuple[str, int]]] = {"alpha": ("r", 1)}

    r: Count = 8
    alpha: Count | None = None
    niter: Natural = 0
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
    lr: Rate = 1.5e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and split its weights tower by tower, before anything is quantised."""
        check_splits(self, model, context)
        start = "pissa" if self.niter == 0 else f"pissa_niter_{self.niter}"
        with float_weights(model):
            adapt_low_rank(
                self, model, context, convolutions=False, init_lora_weights=True if on_meta(model) else start
            )
