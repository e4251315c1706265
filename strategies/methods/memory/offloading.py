"""offload_activations — keep what the backward pass needs in the host's memory, or on disk.

What: every tensor of at least `min_bytes` that autograd saves in the forward pass is copied to the host (pinned
memory, without waiting) and comes back when its gradient is due; a tensor saved by several layers is copied once.
With `to="disk"` the copy is a memory-mapped temporary file, which helps a CPU with little memory, too.
Why it helps: activation memory on the GPU falls to about one layer, and unlike checkpointing nothing is computed twice.
What it costs: each byte crosses the bus twice, so steps take longer unless products are large; host memory instead of
the GPU's. Under amp 16-bit copies of the weights travel, too; int8 layers keep their inputs where no hook sees them.
When not to use it: checkpointing saves enough in less time (with both, only block inputs travel), or, for the disk, the
temporary folder is itself in memory.
Paper: Rhu et al., vDNN: Virtualized Deep Neural Networks, 2016, https://arxiv.org/abs/1602.08124

Weights and views of them stay where they are: they are not activations and are on the device anyway.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import wraps
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, final

from strategies.options import Natural
from strategies.protocol import Context, Kind, Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch
    from torch import Tensor, nn

MEBIBYTE = 2**20


class OffloadedTensor(NamedTuple):
    """A copy in host memory, and where the original was."""

    host: Tensor
    device: torch.device


@dataclass
class ActivationOffloader:
    """Pack and unpack hooks for the tensors that one forward pass saves."""

    to: str
    min_bytes: int
    excluded: frozenset[int]  # storages that are never copied
    count: int = 0  # copies made
    _copies: dict[tuple[Any, ...], tuple[Any, OffloadedTensor]] = field(default_factory=dict)

    def pack(self, tensor: Tensor) -> Tensor | OffloadedTensor:
        """Copy a saved tensor to the host, once however many layers save it."""
        import torch
        from torch.multiprocessing.reductions import StorageWeakRef

        plain = type(tensor) in {torch.Tensor, torch.nn.Parameter} and tensor.layout is torch.strided
        if not plain or tensor.nbytes < max(1, self.min_bytes) or _address(tensor) in self.excluded:
            return tensor
        # The weak reference keeps the address from being used again; the version changes with every write.
        key = (_address(tensor), tensor._version, tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)  # noqa: SLF001
        if key not in self._copies:
            on_gpu = tensor.device.type == "cuda"
            if self.to == "disk":
                host = _on_disk(tensor)
            else:
                host = torch.empty_like(tensor, device="cpu", pin_memory=on_gpu, requires_grad=False)
            host.copy_(tensor.detach(), non_blocking=on_gpu)
            self._copies[key] = StorageWeakRef(tensor.untyped_storage()), OffloadedTensor(host, tensor.device)
            self.count += 1
        return self._copies[key][1]

    def unpack(self, saved: Tensor | OffloadedTensor) -> Tensor:
        """Bring a tensor back to where it was."""
        if isinstance(saved, OffloadedTensor):
            return saved.host.to(saved.device, non_blocking=True)
        return saved

    def close(self) -> None:
        """Forget what was seen: later on addresses may mean other tensors."""
        self._copies.clear()


def _on_disk(tensor: Tensor) -> Tensor:
    """Make a tensor like this one in a file of its own, which goes when the tensor goes."""
    import torch

    with tempfile.NamedTemporaryFile() as file:  # POSIX keeps the mapped data when the name is gone
        flat = torch.from_file(file.name, shared=True, size=tensor.numel(), dtype=tensor.dtype)
    return flat.as_strided(tensor.shape, torch.empty_like(tensor, device="meta").stride())


def storages(tensors: Iterable[Tensor]) -> frozenset[int]:
    """Give the addresses of the memory behind `tensors`."""
    return frozenset(map(_address, tensors))


def _address(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001


@final
@dataclass(frozen=True, kw_only=True)
class OffloadActivations(Strategy):
    """Saved tensors of at least `min_bytes` wait in host memory for the backward pass."""

    name: ClassVar[str] = "offload_activations"
    kind: ClassVar[Kind] = "memory"
    stage: ClassVar[int] = 40
    slots: ClassVar[frozenset[str]] = frozenset({"offloading"})
    trial: ClassVar[Mapping[str, Any]] = {"to": "disk", "min_bytes": 0}

    to: Literal["host", "disk"] = "host"
    min_bytes: Natural = MEBIBYTE

    def unavailable(self, device: torch.device | str) -> str | None:
        """Need a device with memory of its own, or a disk."""
        missing = super().unavailable(device)
        pointless = self.to == "host" and str(device).partition(":")[0] == "cpu"
        return missing or ("on a CPU activations are in host memory already; to='disk' works" if pointless else None)

    def place(self, model: nn.Module, context: Context) -> None:
        """Remember the model, whose weights stay where they are."""
        context.member_state[self] = model

    def wrap_forward(self, forward: Callable[..., Any], context: Context) -> Callable[..., Any]:
        """Set the hooks around the forward pass, in training only."""
        import torch

        @wraps(forward)
        def with_hooks(*arguments: Any, **options: Any) -> Any:
            if not torch.is_grad_enabled():
                return forward(*arguments, **options)
            model: nn.Module = context.member_state[self]
            offloader = ActivationOffloader(self.to, self.min_bytes, storages([*model.parameters(), *model.buffers()]))
            with torch.autograd.graph.saved_tensors_hooks(offloader.pack, offloader.unpack):
                result = forward(*arguments, **options)
            offloader.close()
            return result

        return with_hooks
