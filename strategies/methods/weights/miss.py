"""miss — add one small trained matrix that all shards of a layer's input share.

What: the input is cut into groups of r channels, the groups are summed, and one trained r × out_features matrix, zero
at the start, maps the sum to an addition to the output; the weights stay frozen.
Why it helps: half of LoRA's matrices, one product instead of two, no random initialisation, and an adapted layer keeps
r numbers per token for the backward pass in place of its input.
What it costs: trained values r·out_features per layer. r=8 here, since PEFT's 64 is for layers thousands of channels
wide and more than small layers have. When not to use it: inputs whose channels
mean very different things at a distance of r, which the shared matrix cannot tell apart.
Paper: Kang and Yin, MiSS: Revisiting the Trade-off in LoRA with an Efficient Shard-Sharing Structure, 2024,
https://arxiv.org/abs/2409.15371
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.options import Count, Names, Rate, Share
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import AdaptedLayer, adapt
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Miss(Strategy):
    """One shared matrix per layer of `scope` with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "miss"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES

    r: Count = 8
    dropout: Share = 0.0
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 1e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject adapters; a rank above a layer's inputs is refused."""
        import peft

        config = peft.MissConfig(r=self.r, miss_dropout=self.dropout)
        adapt(self, model, context, config, adjust=self._check_sizes)

    def _check_sizes(self, config: Any, layers: list[AdaptedLayer]) -> None:
        """Refuse layers with fewer inputs than r."""
        del config
        for _, name, layer in layers:
            width = int(vars(layer)["in_features"])
            self.require(self.r <= width, f"r={self.r} is more than the {width} inputs of {name!r}: choose a smaller r")
