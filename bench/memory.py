"""How much memory one training step needs, and for what.

Two instruments over a few extra steps after the run, so that neither slows a timed step:
the allocator itself (CUDA statistics; on CPU the profiler's allocation events, since resident memory is noise),
and a storage tracker, a dispatch mode that holds one weak reference per storage and knows at the peak which
bytes are weights, gradients, optimizer state and activations. A dispatch mode disables torch.compile, so the
split of a compiled run is that of its eager twin, and the peak is the allocator's.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bench.record import MEMORY_KINDS

if TYPE_CHECKING:
    from strategies import Tuned

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
        for tensor in tensors:
            storage = tensor.untyped_storage()
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
        fresh = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        self.mark((t for t in fresh if id(t.untyped_storage()) not in self._live), "activations")
        if self.live_bytes > self.peak_bytes:
            self.peak_bytes, self.peak_by_kind = self.live_bytes, dict(self.by_kind)
        return out


def allocation_peak(step: Callable[[], object]) -> int:
    """Most bytes the CPU allocator held above its level at the start while `step` ran."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as window:
        step()
    assert window.profiler is not None
    results = window.profiler.kineto_results
    assert results is not None
    events = [(event.start_ns(), event.nbytes()) for event in results.events() if event.name() == "[memory]"]
    level = peak = 0
    for _, size in sorted(events, key=lambda event: event[0]):
        level += size
        peak = max(peak, level)
    return peak


def probe(tuned: Tuned, step: Callable[[], object]) -> dict[str, int]:
    """Peak of a steady training step and its split, in bytes.

    step: one whole optimizer update on the largest batch. Returns `peak_allocated_bytes` (CPU only: on CUDA
    the training sections have measured it) and `<kind>_bytes` for the four kinds. What strategies keep from update to
    update (averages of weights, say) counts as optimizer state.
    """
    step()
    model, device = tuned.model, tuned.device
    tracker = StorageTracker()
    tracker.mark(tensors_in(tuned.state.kept, modules=True), "optimizer")
    tracker.mark(tensors_in(tuned.optimizer.state), "optimizer")
    tracker.mark(held_tensors(model), "weights")  # the last word: strategies may keep references to the model
    static = tracker.live_bytes
    measured: dict[str, int] = {}

    def mark_kept(parameter: Tensor) -> None:
        if parameter.grad is not None:
            tracker.mark([parameter.grad], "gradients")

    if device.type == "cpu":
        measured["peak_allocated_bytes"] = static + allocation_peak(step)
    handles = []
    for parameter in model.parameters():
        if parameter.requires_grad:  # marked as it arrives, since an engine may use it up at once, and as it is kept
            handles.append(parameter.register_hook(lambda gradient: tracker.mark([gradient], "gradients")))
            handles.append(parameter.register_post_accumulate_grad_hook(mark_kept))
    try:
        with torch.compiler.set_stance("force_eager"), tracker:
            step()
    finally:
        for handle in handles:
            handle.remove()
    split = dict(tracker.peak_by_kind)
    if device.type == "cpu":
        split["activations"] = measured["peak_allocated_bytes"] - sum(
            split[k] for k in MEMORY_KINDS if k != "activations"
        )
    return measured | {f"{kind}_bytes": size for kind, size in split.items()}
