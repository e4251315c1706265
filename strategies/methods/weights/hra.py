"""hra — reflect each layer's input by a chain of trained Householder reflections.

What: y = W·H1·…·Hr·x with W frozen, each H = I − 2uuᵀ a reflection with one trained u of length one. Vectors start in
equal pairs, which cancel, so training starts at the pretrained model; hence r is even. `apply_GS` orthogonalises
them.
Why it helps: an orthogonal change as in oft, and a low-rank one as in lora: r·in_features trained values per layer.
What it costs: r products with rank-one matrices in a row, each with a full in×in matrix in PEFT's layer; slow for
large r. Rounding makes the start equal to about 1e-7 only. Quantised bases are refused. When not to use it: wide
layers where steps are already slow; oft with blocks is cheaper.
Paper: Yuan et al., Bridging The Gap between Low-rank and Orthogonal Adaptation via Householder Reflection Adaptation,
2024, https://arxiv.org/abs/2405.17484
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.options import Count, Names, Rate
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import adapt
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Hra(Strategy):
    """Householder reflections before the layers of `scope` with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "hra"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES

    r: Count = 8
    apply_GS: bool = False  # noqa: N815 - PEFT's name
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 2e-3
    head_lr: Rate = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.r % 2 == 0, f"r={self.r} should be even: reflections start in pairs that cancel")

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject reflections tower by tower."""
        import peft

        config = peft.HRAConfig(r=self.r, apply_GS=self.apply_GS)
        adapt(self, model, context, config, convolutions=True)
