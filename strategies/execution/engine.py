"""The engine: how one update is carried out. Plain torch here; sharding engines take the same seat.

`prepare` owns the order of wrapping the model and making the optimizer (FSDP2 shards before the optimizer
exists, DeepSpeed takes it in). The loss scaler lives here because it takes part in backward, clipping and the
step; with any precision but fp16 it passes everything through and adds no synchronisation.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

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
        self._one = torch.ones((), device=device)
        self._skipped = torch.zeros((), dtype=torch.int64, device=device)

    def prepare(
        self, model: nn.Module, make_optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    ) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Give the model to call and the optimizer made for it."""
        self.model, self.optimizer = model, make_optimizer(model)
        self._parameters = list(model.parameters())  # walking the modules takes as long as several kernels
        return self.model, self.optimizer

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of `loss`."""
        self.scaler.scale(loss).backward()

    def unscale_gradients(self) -> None:
        """Say that an update's gradients are all there; afterwards they are unscaled."""
        self.scaler.unscale_(self.optimizer)

    def named_gradients(self) -> Iterator[tuple[str, Tensor | None]]:
        """Give the name and gradient of every parameter that trains."""
        return ((name, p.grad) for name, p in self.model.named_parameters() if p.requires_grad)

    def clip(self, clip_gradients: Callable[[Sequence[Tensor]], object]) -> None:
        """Limit the gradients of what trains, in place."""
        clip_gradients([p for p in self._parameters if p.requires_grad])

    def update(self) -> None:
        """Take the optimizer's step, unless the loss scaler finds a gradient that is not finite."""
        scale = self.scaler.scale(self._one)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.scaler.is_enabled():  # the scale falls exactly when a step was skipped; at zero nothing is finite
            after = self.scaler.scale(self._one)
            self._skipped += (after < scale) | (after == 0)

    def skipped_steps(self) -> int:
        """Count the updates that the loss scaler skipped; synchronises."""
        return int(self._skipped)

    def state_dict(self) -> dict[str, Any]:
        """Give what it keeps from update to update, for a checkpoint."""
        return {"scaler": self.scaler.state_dict(), "skipped": self._skipped}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Take back what `state_dict` gave."""
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(saved["scaler"])
        self._skipped.copy_(saved["skipped"])

    def full_state(self, names: Collection[str]) -> dict[str, Tensor]:
        """Give, whole, what a fresh base lacks: the parameters `names`, and persistent buffers."""
        state = {name: p.detach() for name, p in self.model.named_parameters() if name in names}
        packed = [name for name, tensor in state.items() if not (tensor.is_floating_point() or tensor.is_complex())]
        if packed:
            raise PlanError(f"{packed[0]!r} is quantised and belongs to a new part, which cannot be saved")
        return state | {name: buffer.detach() for name, buffer in _persistent_buffers(self.model)}

    def no_sync(self) -> AbstractContextManager[None]:
        """Hold back communication between accumulated batches; nothing to hold back in one process."""
        return nullcontext()


def _persistent_buffers(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Give what `state_dict()` has beside parameters, without running anybody's hooks."""
    for prefix, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:  # noqa: SLF001 - torch has no other list
                yield f"{prefix}.{name}".lstrip("."), buffer
