"""The engine: how one update is carried out. Plain torch here; sharding engines take the same seat.

`prepare` owns the order of wrapping the model and making the optimizer (FSDP2 shards before the optimizer
exists, DeepSpeed takes it in). The loss scaler lives here because it takes part in backward, clipping and the
step; with any precision but fp16 it passes everything through and adds no synchronisation.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch
    from torch import Tensor, nn


def torch_dtype(precision: str) -> torch.dtype:
    """Give torch's type for the fact `precision`."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


class Engine:
    """One process, one device."""

    model: nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self, device: torch.device, precision: str) -> None:
        import torch

        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")

    def prepare(
        self, model: nn.Module, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Give the model to call and the optimizer made for it."""
        self.model, self.optimizer = model, make_optimizer(model)
        return self.model, self.optimizer

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`; afterwards they are unscaled."""
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)

    def named_gradients(self) -> Iterator[tuple[str, Tensor | None]]:
        """Give the name and gradient of every parameter that trains."""
        return ((name, p.grad) for name, p in self.model.named_parameters() if p.requires_grad)

    def clip(self, max_norm: float) -> None:
        """Scale the gradients down to a total norm of at most `max_norm`; does not synchronise."""
        import torch

        torch.nn.utils.clip_grad_norm_([p for p in self.model.parameters() if p.requires_grad], max_norm)

    def update(self) -> None:
        """Take the optimizer's step."""
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def full_state(self) -> dict[str, Tensor]:
        """Give everything that training changes, whole: parameters that train and persistent buffers."""
        state = {name: p.detach() for name, p in self.model.named_parameters() if p.requires_grad}
        kept = self.model.state_dict()
        return state | {name: b.detach() for name, b in self.model.named_buffers() if name in kept}

    def no_sync(self) -> AbstractContextManager[None]:
        """Hold back communication between accumulated batches; nothing to hold back in one process."""
        return nullcontext()
