"""adamw8bit — AdamW whose two moments are kept in 8 bits.

What: bitsandbytes' AdamW8bit. After each update both moments of a tensor are stored as codes of 8 bits with one scale
per block of 256 values; the update itself is computed in 32 bits. Tensors of fewer than `min_8bit_size` values keep 32
bits. Why it helps: 2 bytes of optimizer state per trained weight instead of 8, at AdamW's rates; after 20 updates of a
small network the loss was 0.1 % from that of 32 bits, and the weights 13 % of the way travelled
(`tests/strategies/methods/update`). What it costs: rounding noise in the moments; on a CPU codes are unpacked and
packed in separate passes, and on a GPU bitsandbytes waits for the device after each tensor, which shows with many
small ones. When not to use it: few weights train (adapters), so that the optimizer's state is small anyway. Paper:
Dettmers et al., 8-bit Optimizers via Block-wise Quantization, 2021, https://arxiv.org/abs/2110.02861
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, final

from strategies.options import Count, Rate
from strategies.protocol import OPTIMIZER, Kind, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


def adamw_8bit(groups: list[dict[str, Any]], min_8bit_size: int, *, paged: bool) -> torch.optim.Optimizer:
    """Make bitsandbytes' AdamW with 8-bit moments; the rest of its settings are those of torch's AdamW."""
    import bitsandbytes

    optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(
        groups, betas=(0.9, 0.999), eps=1e-8, min_8bit_size=min_8bit_size, is_paged=paged
    )
    return optimizer


@final
@dataclass(frozen=True, kw_only=True)
class AdamW8bit(Strategy):
    """AdamW with moments in 8 bits, but for tensors of fewer than `min_8bit_size` values."""

    name: ClassVar[str] = "adamw8bit"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({OPTIMIZER})
    packages: ClassVar[tuple[str, ...]] = ("bitsandbytes",)
    trial: ClassVar[Mapping[str, Any]] = {"min_8bit_size": 256}

    min_8bit_size: Count = 4096
    lr_scale: Rate = 1.0

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Take AdamW with 8-bit moments."""
        del make
        return lambda groups: adamw_8bit(groups, self.min_8bit_size, paged=False)
