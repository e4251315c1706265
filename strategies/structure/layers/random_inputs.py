"""Random inputs for one layer, to compare what it gives before and after a change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

ROWS = 64  # inputs of a linear layer or an embedding
IMAGE_SIZE = 8  # height and width of pictures for convolutions


def random_inputs(base: Any) -> Tensor:
    """Draw inputs that fit a layer (linear, convolution, embedding), the same each time, of its type and device."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(0)
    shape: tuple[int, ...]
    if isinstance(base, nn.Embedding):
        return torch.randint(base.num_embeddings, (ROWS,), generator=generator).to(base.weight.device)
    if isinstance(base, nn.modules.conv._ConvNd):  # noqa: SLF001 - what convolutions have in common
        reach = ((kernel - 1) * step for kernel, step in zip(base.kernel_size, base.dilation, strict=True))
        shape = (ROWS // IMAGE_SIZE, base.in_channels, *(IMAGE_SIZE + more for more in reach))
    else:
        shape = (ROWS, base.in_features)
    dtype = base.weight.dtype if base.weight.is_floating_point() else torch.float32
    return torch.randn(shape, generator=generator).to(base.weight.device, dtype)
