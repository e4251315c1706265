"""What in a batch a mean loss may divide by, and how often it is in each part of a batch.

Labels other than a value that losses leave out, entries of a mask, weights, entries of lists with one for each example:
whole, and without the first of each row, which is never predicted in causal language models.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from strategies.execution.feed import MicroBatch

EXAMPLES: Final = "examples"
LEFT_OUT: Final = -100  # torch's `ignore_index`
OTHERS_LEFT_OUT: Final = (-1, 0, 1, 255)  # values that losses of people leave out: paddings, background
SHIFTED: Final = ", the first of each row left out"
ROWS = 2  # dimensions of a tensor with a row for each example


class Counter:
    """Counts, for each part of a batch, what its loss may divide by; remembers the paddings that it has seen.

    `shifted`: labels without the first of each row are the likelier ones.
    """

    def __init__(self, *, shifted: bool) -> None:
        self._shifted = shifted
        self._paddings: dict[str, set[int]] = {}

    def __call__(self, parts: Sequence[MicroBatch]) -> dict[str, list[float]]:
        """Give words → count in each part, the likely ones first; only what all parts have."""
        named = [_named(part.batch) for part in parts]
        for tensors in named:
            for name, found in tensors.items():
                self._paddings.setdefault(name, set()).update(_paddings(found))
        tables = [
            _labels(tensors, shifted_first=self._shifted) | {EXAMPLES: float(part.size)} | self._others(tensors)
            for part, tensors in zip(parts, named, strict=True)
        ]
        return {words: [table[words] for table in tables] for words in tables[0] if all(words in t for t in tables)}

    def _others(self, named: Mapping[str, Sequence[Tensor]]) -> dict[str, float]:
        found: dict[str, float] = {}
        for name, tensors in named.items():
            if "[]" in name:
                found[f"entries of {name}"] = float(sum(len(tensor) for tensor in tensors if tensor.ndim))
            for shift, seen in _views(tensors):
                if all(_is_integer(tensor) for tensor in seen):
                    for value in (*OTHERS_LEFT_OUT, *sorted(self._paddings[name])):
                        found[f"{name} other than {value}{shift}"] = _total([tensor != value for tensor in seen])
                if all(_may_be_weights(tensor) for tensor in seen):
                    found[f"the sum of {name}{shift}"] = _total(seen)
        return found


def labels_counted(name: str, *, shifted: bool) -> str:
    """Give the words for labels that torch's losses count: values other than `LEFT_OUT`."""
    return f"{name} other than {LEFT_OUT}{SHIFTED if shifted else ''}"


def _labels(named: Mapping[str, Sequence[Tensor]], *, shifted_first: bool) -> dict[str, float]:
    return {
        labels_counted(name, shifted=bool(shift)): _total([tensor != LEFT_OUT for tensor in seen])
        for name, tensors in named.items()
        for shift, seen in sorted(_views(tensors), key=lambda view: bool(view[0]) != shifted_first)
        if all(_is_integer(tensor) for tensor in seen)
    }


def _views(tensors: Sequence[Tensor]) -> Iterator[tuple[str, Sequence[Tensor]]]:
    """Give tensors whole, and where they have rows without the first of each."""
    if all(tensor.ndim for tensor in tensors):
        yield "", tensors
    if all(tensor.ndim >= ROWS for tensor in tensors):
        yield SHIFTED, [tensor[..., 1:] for tensor in tensors]


def _named(batch: Any, name: str = "batch", *, top: bool = True) -> dict[str, list[Tensor]]:
    """Give all tensors of a batch by name; those of a list in it share one."""
    import torch

    found: dict[str, list[Tensor]] = {}
    children: list[tuple[str, Any]] = []
    prefix = "" if top else f"{name}."
    if isinstance(batch, torch.Tensor):
        return {name: [batch.detach()]}
    if isinstance(batch, Mapping):
        children = [(f"{prefix}{key}", value) for key, value in batch.items()]
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        children = [(f"{prefix}{part.name}", getattr(batch, part.name)) for part in dataclasses.fields(batch)]
    elif isinstance(batch, list | tuple):
        own = top and not all(isinstance(part, Mapping) for part in batch)
        children = [(f"batch[{place}]" if own else f"{name}[]", part) for place, part in enumerate(batch)]
    for child, value in children:
        for path, tensors in _named(value, child, top=False).items():
            found.setdefault(path, []).extend(tensors)
    return found


def _is_integer(tensor: Tensor) -> bool:
    import torch

    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _may_be_weights(tensor: Tensor) -> bool:
    """Say whether a tensor may be a mask or weights: none below zero, and integers only zero and one."""
    import torch

    if tensor.dtype == torch.bool or not tensor.numel():
        return True
    if tensor.is_complex() or tensor.ndim > ROWS or not tensor.ndim:
        return False
    return bool(tensor.min() >= 0) and (tensor.is_floating_point() or bool(tensor.max() <= 1))


def _paddings(tensors: Sequence[Tensor]) -> Iterator[int]:
    """Give the values with which at least two columns of a row end."""
    for tensor in tensors:
        if tensor.ndim == ROWS and tensor.shape[1] > 1 and _is_integer(tensor):
            ends = tensor[tensor[:, -1] == tensor[:, -2], -1]
            if ends.numel():
                yield int(ends.mode().values)


def _total(tensors: Sequence[Tensor]) -> float:
    import torch

    return sum(float(tensor.sum(dtype=torch.float64)) for tensor in tensors)
