"""paged_adamw8bit — adamw8bit whose moments make room on the GPU when activations need it.

What: bitsandbytes' AdamW8bit with its moments in CUDA's managed memory: the driver moves their pages to the computer's
memory when the GPU is full, and back for the update. Tensors of fewer than 100 000 values stay on the GPU.
Why it helps: a rare long batch no longer ends the run for want of memory; while everything fits nothing is moved.
What it costs: moving is slow, so a run that is always short of memory crawls; the pages lie outside torch's allocator,
so `max_memory_allocated` and the allocator's other figures leave them out and look better than they are. When not to
use it: memory suffices (adamw8bit), or the state never fits (galore, adafactor, adapters).
Paper: Dettmers et al., QLoRA (paged optimizers), 2023, https://arxiv.org/abs/2305.14314
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from strategies.methods.update.adamw8bit import adamw_8bit
from strategies.options import Count, Rate
from strategies.protocol import OPTIMIZER, Kind, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch


@final
@dataclass(frozen=True, kw_only=True)
class PagedAdamW8bit(Strategy):
    """AdamW with moments in 8 bits and in memory that the GPU shares with the computer."""

    name: ClassVar[str] = "paged_adamw8bit"
    kind: ClassVar[Kind] = "update"
    stage: ClassVar[int] = 60
    slots: ClassVar[frozenset[str]] = frozenset({OPTIMIZER})
    resumable: ClassVar[bool] = False  # its moments lie in memory that only the package can make
    packages: ClassVar[tuple[str, ...]] = ("bitsandbytes",)

    min_8bit_size: Count = 4096
    lr_scale: Rate = 1.0

    def unavailable(self, device: torch.device | str) -> str | None:
        """Need a GPU."""
        missing = super().unavailable(device)
        if missing is None and not str(device).startswith("cuda"):
            return "needs a CUDA GPU: on a CPU there is no GPU memory to page out of; take adamw8bit"
        return missing

    def optimizer(self, make: Callable[..., torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
        """Take AdamW with paged 8-bit moments (the parameters' device decides, as only a GPU's can be paged)."""
        del make

        def paged(groups: list[dict[str, object]]) -> torch.optim.Optimizer:
            on_gpu = any(parameter.is_cuda for group in groups for parameter in group["params"])  # type: ignore[attr-defined]
            return adamw_8bit(groups, self.min_8bit_size, paged=on_gpu)

        return paged
