"""nf4 — store the frozen base in 4 bits (the quantised half of QLoRA).

What: each frozen linear weight becomes 4-bit NormalFloat with one scale per 64 values, unpacked for every product.
Why it helps: the base takes about 1/7 of its 32-bit memory (scales included), so larger models fit.
What it costs: unpacking in every forward and backward, so steps get slower, and a rounding error in the base. On
models of 200M parameters activations dominate and little is won; on CPU it saves no time at all. Under mixed
precision its outputs come back in the input's type. When not to use it: the model fits without.
Paper: Dettmers et al., QLoRA, 2023, https://arxiv.org/abs/2305.14314

Layers are swapped before adapters are injected, so that PEFT picks its own 4-bit LoRA layers. Layers whose inputs are
no multiple of 64 get a scale per 32 values; those that are no multiple of 32 either stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.methods.numerics.quantise import SMALL_BLOCK, set_compute_dtype, simulate_move, swap_linears, to_4bit
from strategies.protocol import FROZEN_BASE, Context, Kind, Strategy

if TYPE_CHECKING:
    from torch import nn


@final
@dataclass(frozen=True, kw_only=True)
class Nf4(Strategy):
    """4-bit storage of the frozen linear layers of `scope`; `double_quant` also quantises the scales."""

    name: ClassVar[str] = "nf4"
    kind: ClassVar[Kind] = "numerics"
    stage: ClassVar[int] = 10
    slots: ClassVar[frozenset[str]] = frozenset({"storage of the base"})
    requires: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    setup_during_move: ClassVar[bool] = True

    double_quant: bool = True
    scope: str | None = None

    def transform(self, model: nn.Module, context: Context) -> None:
        """Swap the layers."""

        def make(layer: nn.Linear) -> nn.Linear:
            return to_4bit(layer, quant_type="nf4", double_quant=self.double_quant)

        swap_linears(self, model, context, make, multiple=SMALL_BLOCK)

    def simulate_move(self, model: nn.Module, context: Context) -> None:
        """Give the layers their packed shapes."""
        simulate_move(model, context.device)

    def place(self, model: nn.Module, context: Context) -> None:
        """Let the layers compute in the plan's precision."""
        set_compute_dtype(model, str(context.facts["precision"]))
