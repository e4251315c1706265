"""tf32 — let tensor cores do float32 products with 10 bits of mantissa.

What: matrix products, convolutions and recurrent layers on float32 tensors round their inputs to TensorFloat-32 (8
bits of exponent, 10 of mantissa) and add up in float32. Weights, activations, gradients stay float32.
Why it helps: Nvidia states 8× the throughput of float32 for the A100's products; nothing else in the loop changes.
What it costs: about three decimal digits in each product, as in fp16, but with the range of float32. Convolutions do
this by torch's own default already, so a convolutional network gains nothing. The setting is the process's, not the
model's: it holds for everything that runs after it. When not to use it: amp saves more time, and memory with it.
Paper: Stosic and Micikevicius, Accelerating AI Training with NVIDIA TF32 Tensor Cores, 2021,
https://developer.nvidia.com/blog/accelerating-ai-training-with-tf32-tensor-cores/
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, cast, final

from strategies.protocol import Context, Kind, Strategy

if TYPE_CHECKING:
    import torch
    from torch import nn

OLDEST_GPU = (8, 0)
ONE_API = (2, 9)  # since then torch has `fp32_precision`; reading or writing the older switches beside it raises


def use_tf32() -> None:
    """Switch to TF32 for the rest of the process, through the one interface that this torch has."""
    import torch

    cuda, cudnn = torch.backends.cuda, cast("Any", torch.backends.cudnn)  # its attributes are made at run time
    if cast("Any", torch.__version__) < ONE_API:
        cuda.matmul.allow_tf32 = True
        cudnn.allow_tf32 = True
        return
    for part in (cuda.matmul, cudnn.conv, cudnn.rnn):
        part.fp32_precision = "tf32"


@final
@dataclass(frozen=True, kw_only=True)
class Tf32(Strategy):
    """TensorFloat-32 products for the whole process."""

    name: ClassVar[str] = "tf32"
    kind: ClassVar[Kind] = "numerics"
    stage: ClassVar[int] = 30
    slots: ClassVar[frozenset[str]] = frozenset({"float32 products"})

    def unavailable(self, device: torch.device | str) -> str | None:
        """Need a GPU with TF32 tensor cores."""
        missing = super().unavailable(device)
        if missing or str(device).partition(":")[0] != "cuda":
            return missing or "TF32 is a format of Nvidia's tensor cores, which a CPU has not"
        import torch

        capability = torch.cuda.get_device_capability(device)
        return None if capability >= OLDEST_GPU else f"needs compute capability 8.0 or newer, this GPU has {capability}"

    def place(self, model: nn.Module, context: Context) -> None:
        """Switch it on, whatever was set before."""
        del model, context
        use_tf32()
