"""lokr — like lora, but the change is a Kronecker product of a small and a (low-rank) larger matrix.

What: y = (W + (alpha/r)·C ⊗ (A·B))·x with W frozen; C is small and zero at the start. `decompose_factor` bounds the
size of C (-1: as square as the shapes allow); the larger matrix stays whole where rank r would not save
anything. `decompose_both` factorises C, too. `alpha` is r unless given.
Why it helps: far fewer trained values than LoRA, and the change may have full rank.
What it costs: the change is built as a full matrix per layer and step; compile breaks its graph there. 4-bit bases are
refused. When not to use it: layer widths that are prime or nearly so, since the Kronecker product then degenerates to
one large matrix.
Paper: Edalati et al., KronA, 2022, https://arxiv.org/abs/2212.10650; as adapter: Yeh et al., Navigating Text-To-Image
Customization (LyCORIS), 2023, https://arxiv.org/abs/2309.14859
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
class Lokr(Strategy):
    """Kronecker products on the layers of `scope` with the given `roles` (default: query and value)."""

    name: ClassVar[str] = "lokr"
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
    decompose_both: bool = False
    decompose_factor: int = -1
    roles: tuple[Role, ...] | None = None
    target_modules: Names | None = None
    scope: str | None = None
    lr: Rate = 3e-3
    head_lr: Rate = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        factor = self.decompose_factor
        self.require(factor == -1 or factor >= 1, f"decompose_factor={factor} should be -1 or at least 1")

    def transform(self, model: nn.Module, context: Context) -> None:
        """Freeze the scope and inject adapters tower by tower."""
        import peft

        config = peft.LoKrConfig(
            r=self.r, alpha=self.alpha, rank_dropout=self.rank_dropout, module_dropout=self.module_dropout,
            decompose_both=self.decompose_both, decompose_factor=self.decompose_factor,
        )  # fmt: skip
        adapt(self, model, context, config, convolutions=True)
