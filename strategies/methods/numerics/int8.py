"""int8 — store the frozen base in 8 bits (LLM.int8).

What: each frozen linear weight becomes 8-bit integers with one scale per row; on GPUs the product runs in int8, with
inputs rounded to fp16 and input columns above `threshold` computed apart.
Why it helps: the base takes a quarter of its 32-bit memory, with almost no error.
What it costs: each layer keeps its input for the backward pass, which a frozen float layer does not, so peak memory
may well *rise* (8 % above `lora` on the embedded ViT+BERT, its activations 26 %); steps get slower. On CPU weights
are unpacked for every product and `threshold` has no effect. When not to use it: for training, nf4 is nearly always
better.
Paper: Dettmers et al., LLM.int8(), 2022, https://arxiv.org/abs/2208.07339

Layers are swapped before adapters are injected, so that PEFT picks its own 8-bit LoRA layers.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.methods.numerics.quantise import simulate_move, swap_linears
from strategies.options import NonNegative
from strategies.protocol import FROZEN_BASE, Context, Kind, Strategy

if TYPE_CHECKING:
    import torch
    from torch import nn

OLDEST_GPU = (7, 5)


def _is_relevant(record: logging.LogRecord) -> bool:
    """Leave out what bitsandbytes logs at every call of every layer: that inputs are cast to fp16."""
    return "inputs will be cast" not in str(record.msg)


def to_8bit(layer: nn.Linear, *, threshold: float) -> nn.Linear:
    """Make an 8-bit layer that holds `layer`'s float weight until it moves to a device."""
    import bitsandbytes as bnb

    swapped = bnb.nn.Linear8bitLt(
        layer.in_features, layer.out_features, bias=False, has_fp16_weights=False, threshold=threshold, device="meta"
    )
    weight = layer.weight.detach()
    weight = weight.cpu() if weight.is_cuda else weight  # it is quantised on its way from the CPU only
    swapped.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    return swapped  # type: ignore[no-any-return]


@final
@dataclass(frozen=True, kw_only=True)
class Int8(Strategy):
    """8-bit storage of the frozen linear layers of `scope`; `threshold` sets outlier columns apart (0 = none)."""

    name: ClassVar[str] = "int8"
    kind: ClassVar[Kind] = "numerics"
    stage: ClassVar[int] = 10
    slots: ClassVar[frozenset[str]] = frozenset({"storage of the base"})
    requires: ClassVar[frozenset[str]] = frozenset({FROZEN_BASE})
    packages: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    setup_during_move: ClassVar[bool] = True

    threshold: NonNegative = 6.0
    scope: str | None = None

    def unavailable(self, device: torch.device | str) -> str | None:
        """Need a CPU or a GPU with int8 tensor cores."""
        missing = super().unavailable(device)
        if missing or str(device).partition(":")[0] != "cuda":
            return missing
        import torch

        capability = torch.cuda.get_device_capability(device)
        return None if capability >= OLDEST_GPU else f"needs compute capability 7.5 or newer, this GPU has {capability}"

    def transform(self, model: nn.Module, context: Context) -> None:
        """Swap the layers."""
        logging.getLogger("bitsandbytes.autograd._functions").addFilter(_is_relevant)

        def make(layer: nn.Linear) -> nn.Linear:
            return to_8bit(layer, threshold=self.threshold)

        swap_linears(self, model, context, make)

    def simulate_move(self, model: nn.Module, context: Context) -> None:
        """Give the layers their packed shapes."""
        simulate_move(model, context.device)
