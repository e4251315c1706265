"""adaptformer — freeze the weights and train a bottleneck beside each feed-forward part.

What: MLP(x) + scale·U·relu(D·x) in every transformer layer, D to `r` features and U back; U starts at zero, so
training starts at the pretrained model. Where a model has no feed-forward parts (or other layers are asked for), the
branch runs beside each single layer, as a convolution beside convolutions.
Why it helps: half the bottlenecks of `houlsby` (1.1 % of BERT-base at r = 64), beside the frozen layers instead of
behind them; made for ViTs.
What it costs: two small layers per block, also at inference, since a non-linear branch cannot be merged. When not to
use it: the attention has to change (lora), the model must not get slower, or checkpointed blocks are to be compiled.
Paper: Chen et al., AdaptFormer, 2022, https://arxiv.org/abs/2205.13535 (r = 64 and scale 0.1 there)

Own code: no library offers it for transformers 5. The first layer of a feed-forward part computes the branch from its
input (normed features in a ViT, as in the paper's formula), and the last one adds it. Checkpointing and the compiler
can each follow that; blocks that are both checkpointed and compiled may run uncompiled, with the same results.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.options import Count, Names, Rate
from strategies.protocol import FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import chosen_layers, freeze_scope
from strategies.structure.bottlenecks import pairs, wrap_pair, wrap_parallel
from strategies.structure.choice.choosing import blocks_of, known_roles
from strategies.structure.linear_layers import conv1d_to_linear
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class AdaptFormer(Strategy):
    """Bottlenecks of `r` features beside the feed-forward parts of `scope`, or beside the layers asked for."""

    name: ClassVar[str] = "adaptformer"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})

    r: Count = 64
    scale: Rate = 0.1
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 1e-2
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and put a bottleneck beside each pair of layers, or beside each single layer."""
        import torch

        chosen = chosen_layers(self, model, context, ("up", "down"), convolutions=True)
        freeze_scope(model, context, self.scope)
        torch.manual_seed(context.seed)
        for roots in context.layout.groups(model, self.scope).values():
            names = [name for root in roots for name in chosen.get(root, ())]
            together, single = pairs(names, blocks_of(model, roots), known_roles(model, roots))
            for name in names:
                conv1d_to_linear(model, name)
            for first, last in together:
                wrap_pair(model, first, last, self.r, self.scale)
            for name in single:
                wrap_parallel(model, name, self.r, self.scale)
