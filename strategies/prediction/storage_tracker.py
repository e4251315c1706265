"""What memory is for, storage by storage: weights, gradients, optimizer state, and the rest of a training step.

A dispatch mode that holds one weak reference per storage, on real tensors (a measurement) and on fake ones (a
prediction). It knows at the peak which bytes are what. A dispatch mode disables torch.compile, so what it sees of a
compiled plan is its eager twin.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

if TYPE_CHECKING:
    from strategies.training.tuned import Tuned

MEMORY_KINDS: Final = ("weights", "gradients", "optimizer", "activations")
WALK_DEPTH = 6


def tensors_in(
    value: Any, depth: int = WALK_DEPTH, seen: set[int] | None = None, *, modules: bool = False
) -> Iterator[Tensor]:
    """Every tensor reachable from `value` through containers and plain attributes, and through modules if told so.

    Quantised layers keep scales and code books on their parameters and in state objects; walking attributes
    finds them without knowing any library.
    """
    seen = set() if seen is None else seen
    if id(value) in seen or depth < 0 or (callable(value) and not isinstance(value, Tensor | nn.Module)):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        yield value
    children: Iterable[Any]
    if isinstance(value, dict):
        children = value.values()
    elif isinstance(value, list | tuple | set):
        children = value
    else:
        children = vars(value).values() if hasattr(value, "__dict__") else ()
    for child in list(children):
        if modules or not isinstance(child, nn.Module):
            yield from tensors_in(child, depth - 1, seen, modules=modules)


def held_tensors(model: nn.Module) -> Iterator[Tensor]:
    """The model's parameters and buffers with everything quantisation hangs on them."""
    seen: set[int] = set()
    for module in model.modules():
        for name, value in vars(module).items():
            if name not in {"_modules", "config"} and not name.endswith("_hooks"):
                yield from tensors_in(value, WALK_DEPTH, seen)


def dense(tensor: Tensor) -> tuple[Tensor, ...]:
    """Give the tensors that hold a tensor's values: itself, or indices and values of a sparse one."""
    if tensor.layout is torch.sparse_coo:
        return tensor._indices(), tensor._values()  # noqa: SLF001 - the public ones want it coalesced
    return (tensor,)


class StorageTracker(TorchDispatchMode):
    """Bytes of live storages by kind, at every moment and at the peak.

    `peak_bytes` is the largest total, `peak_by_kind` its split. Works on real and on fake tensors.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.by_kind: dict[str, int] = dict.fromkeys(MEMORY_KINDS, 0)
        self.peak_by_kind = dict(self.by_kind)
        self.peak_bytes = 0
        self._live: dict[int, tuple[int, str, weakref.ref[Any]]] = {}

    @property
    def live_bytes(self) -> int:
        """Bytes alive now."""
        return sum(self.by_kind.values())

    def mark(self, tensors: Iterable[Tensor], kind: str) -> None:
        """Say what the storages of these tensors are for."""
        for storage in (part.untyped_storage() for tensor in tensors for part in dense(tensor)):
            key = id(storage)
            if key in self._live:
                self._drop(key)
            size = storage.nbytes()
            self._live[key] = (size, kind, weakref.ref(storage, functools.partial(self._drop, key)))
            self.by_kind[kind] += size

    def _drop(self, key: int, _: object = None) -> None:
        size, kind, _ = self._live.pop(key)
        self.by_kind[kind] -= size

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        self.record(out)
        return out

    def record(self, out: Any) -> None:
        """Take in what an operation gave."""
        made = [part for leaf in tree_leaves(out) if isinstance(leaf, Tensor) for part in dense(leaf)]
        self.mark((part for part in made if id(part.untyped_storage()) not in self._live), "activations")
        if self.live_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_by_kind = self.live_bytes, dict(self.by_kind)


TrackerType = TypeVar("TrackerType", bound=StorageTracker)


def mark_resident(tuned: Tuned, tracker: TrackerType) -> TrackerType:
    """Tell a new tracker what is there between two updates.

    What strategies keep from update to update (averages of weights, say) counts as optimizer state.
    """
    tracker.mark(tensors_in(tuned.state.member_state, modules=True), "optimizer")
    tracker.mark(tensors_in(tuned.optimizer.state), "optimizer")
    tracker.mark(held_tensors(tuned.model), "weights")  # the last word: strategies may keep references to the model
    return tracker


@contextmanager
def tracking(tuned: Tuned, tracker: StorageTracker) -> Iterator[None]:
    """Track what runs inside, gradients known as such: as they arrive, since an engine may use them up, and as kept."""

    def mark_kept(parameter: Tensor) -> None:
        if parameter.grad is not None:
            tracker.mark([parameter.grad], "gradients")

    def mark_new(gradient: Tensor) -> None:
        tracker.mark([gradient], "gradients")

    handles = []
    for parameter in tuned.model.parameters():
        if parameter.requires_grad:
            handles.append(parameter.register_hook(mark_new))
            handles.append(parameter.register_post_accumulate_grad_hook(mark_kept))
    try:
        with torch.compiler.set_stance("force_eager"), tracker:
            yield
    finally:
        for handle in handles:
            handle.remove()


def measure_update(tuned: Tuned, step: Callable[[], object]) -> StorageTracker:
    """Run one steady update under a tracker, which then holds the peak and its split in bytes."""
    tracker = mark_resident(tuned, StorageTracker())
    with tracking(tuned, tracker):
        step()
    return tracker
