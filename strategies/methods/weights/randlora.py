"""randlora — a full-rank change made of many random low-rank matrices, each scaled by trained vectors.

What: y = Wx + scale·Σ Bᵢ·Λᵢ·A·Γᵢ·x with A and all Bᵢ random, frozen and shared by a tower's layers, Λᵢ and Γᵢ diagonal
and trained; as many terms of rank r as full rank needs, Λ zero at the start. The projections come from the plan's
seed. A smaller r means more terms and more trained values, the opposite of LoRA.
Why it helps: the change may have full rank with fewer trained values than such a matrix has.
What it costs: products with a basis as large as the largest weight matrix, in each layer and step; with
`save_projection` (PEFT's default) it is in the file, without it the basis is drawn again from the seed. `alpha` is
20·r in PEFT, so its steps are larger than VeRA's at the same rate. When not to use it: LoRA at a moderate rank already
does.
Paper: Albert et al., RandLoRA: Full-rank parameter-efficient fine-tuning of large models, 2025,
https://arxiv.org/abs/2502.00987
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, final

from strategies.options import Count, Names, Rate, Share
from strategies.protocol import ADAPTER_PACKAGES, FROZEN_BASE, WEIGHTS, Context, Kind, Strategy
from strategies.structure.adapters import adapt
from strategies.structure.roles import Role

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class RandLora(Strategy):
    """Scaled random bases on the layers of `scope` with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "randlora"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES
    follows: ClassVar[Mapping[str, tuple[str, int]]] = {"alpha": ("r", 20)}

    r: Count = 32
    alpha: Count | None = None
    dropout: Share = 0.0
    projection: Literal["dense", "sparse", "very_sparse"] = "dense"
    save_projection: bool = True
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 1e-3
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope, draw the shared bases of each tower from the seed, and inject."""
        import peft

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Specified to not save")  # the plan keeps the seed
            config = peft.RandLoraConfig(
                r=self.r, randlora_alpha=self.alpha, randlora_dropout=self.dropout,
                sparse=self.projection == "sparse", very_sparse=self.projection == "very_sparse",
                save_projection=self.save_projection, projection_prng_key=context.seed,
            )  # fmt: skip
        adapt(self, model, context, config)
