"""nf4 — store the frozen base in 4 bits (the quantised half of QLoRA).

What: each frozen linear weight becomes 4-bit NormalFloat with one scale per 64 values, unpacked for every product.
Why it helps: the base takes about 1/7 of its 32-bit memory (scales included), so larger models fit.
What it costs: unpacking in every forward and backward, so steps get slower, and a rounding error in the base. On
models of 200M parameters activations dominate and little is won; on CPU it saves no time at all. Under mixed
precision its outputs come back in the input's type. When not to use it: the model fits without.
Paper: Dettmers et al., QLoRA, 2023, https://arxiv.org/abs/2305.14314

Layers are swapped before adapters are injected, so that PEFT picks its own 4-bit LoRA layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.engine import torch_dtype
from strategies.numerics.quantised import swap_linears
from strategies.protocol import FROZEN_BASE, Context, Kind, Strategy

if TYPE_CHECKING:
    from torch import nn


def to_4bit(layer: nn.Linear, *, double_quant: bool) -> nn.Linear:
    """Make a 4-bit layer that holds `layer`'s float weight until it moves to a device."""
    import bitsandbytes as bnb

    swapped = bnb.nn.Linear4bit(layer.in_features, layer.out_features, bias=False, device="meta")
    swapped.weight = bnb.nn.Params4bit(
        layer.weight.detach(), requires_grad=False, compress_statistics=double_quant, quant_type="nf4", module=swapped
    )
    # Its CPU kernel repacks the weight in the first evaluation, after which training raises or loses gradients.
    swapped.support_avx512bf16_for_cpu = False
    return swapped  # type: ignore[no-any-return]


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
    works_on_move: ClassVar[bool] = True

    double_quant: bool = True
    scope: str | None = None

    def transform(self, model: nn.Module, context: Context) -> None:
        """Swap the layers."""

        def make(layer: nn.Linear) -> nn.Linear:
            return to_4bit(layer, double_quant=self.double_quant)

        swap_linears(model, context.layout, self.scope, make)

    def place(self, model: nn.Module, context: Context) -> None:
        """Let the layers compute in the plan's precision; earlier, PEFT would make its adapters in that type."""
        import bitsandbytes as bnb

        for module in model.modules():
            if isinstance(module, bnb.nn.Linear4bit):
                module.compute_dtype = torch_dtype(str(context.facts["precision"]))
                module.compute_type_is_set = True
