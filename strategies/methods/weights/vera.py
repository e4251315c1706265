"""vera — one random pair of low-rank matrices shared by all layers of a tower; only scaling vectors train.

What: y = Wx + b·B·(d·A·x) with A and B random, frozen and shared, d and b vectors of r and out_features values that
train; b starts at zero, so training starts at the pretrained model. The projections come from the plan's seed.
Why it helps: r + out_features trained values per layer instead of LoRA's r·(in + out).
What it costs: a high rank (256, as in the paper) makes the extra products dearer than LoRA's; with `save_projection`
(PEFT's default) A and B are in the file, without it they are drawn again from the seed. Needs rates around ten times
LoRA's. When not to use it: LoRA's optimizer state is no burden, then LoRA reaches the same with a smaller rank.
Paper: Kopiczko et al., VeRA: Vector-based Random Matrix Adaptation, 2023, https://arxiv.org/abs/2310.11454
"""

from __future__ import annotations

import warnings
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
class Vera(Strategy):
    """Scaling vectors around shared random matrices on the layers with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "vera"
    kind: ClassVar[Kind] = "weights"
    stage: ClassVar[int] = 20
    slots: ClassVar[frozenset[str]] = frozenset({WEIGHTS})
    provides: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ADAPTER_PACKAGES

    r: Count = 256
    d_initial: Rate = 0.1
    dropout: Share = 0.0
    save_projection: bool = True
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 1.5e-2
    head_lr: Rate = 1e-3

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope, draw the shared matrices of each tower from the seed, and inject."""
        import peft

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Specified to not save")  # the plan keeps the seed
            config = peft.VeraConfig(
                r=self.r, d_initial=self.d_initial, vera_dropout=self.dropout,
                save_projection=self.save_projection, projection_prng_key=context.seed,
            )  # fmt: skip
        adapt(self, model, context, config)
