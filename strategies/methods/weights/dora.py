"""dora — LoRA that learns the length of each row of a weight apart from its direction.

What: W' = m·(W + s·B·A)/‖W + s·B·A‖ row by row; the lengths m start at those of W and train, the norm counts as a
constant in the backward pass. Training starts at the pretrained model.
Why it helps: direction and length can change independently, as they do in full fine-tuning; often a little better
than LoRA at the same small rank, for one more number per output.
What it costs: every forward pass computes B·A and the norm of the whole weight and keeps more for the backward pass:
on a tiny ViT+BERT 1.5 times LoRA's bytes with query and value adapted, 2.3 times with all linear layers. A compiled
graph breaks at each adapted layer (30 breaks there, LoRA none). A quantised base is unpacked once more per layer, and
the lengths are read before it is quantised. When not to use it: time or activation memory is short, or
with int8 on CPU, where it is refused.
Paper: Liu et al., DoRA: Weight-Decomposed Low-Rank Adaptation, 2024, https://arxiv.org/abs/2402.09353

`alpha` is 2·r unless given. Options under PEFT's names are those of `lora`, whose card explains them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.methods.weights.lora import adapt_low_rank, float_weights
from strategies.options import Count, Counts, Names, Numbers, Rate, Rows, Share, added
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Dora(Strategy):
    """Low-rank adapters with trained row lengths on the layers of `scope` with the given `roles`."""

    name: ClassVar[str] = "dora"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES
    follows: ClassVar[Mapping[str, tuple[str, int]]] = {"alpha": ("r", 2)}

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
    lr: Rate = 3e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject adapters tower by tower; the lengths are read before anything is quantised."""
        with float_weights(model):
            adapt_low_rank(self, model, context, use_dora=True)
