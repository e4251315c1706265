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
LABEL: Final = "label"  # in the names of tensors that likely are labels
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
        self._labels: set[str] = set()

    def __call__(self, parts: Sequence[MicroBatch]) -> dict[str, list[float]]:
        """Give words → count in each part, the likely ones first; only what all parts have."""
        named = [_named(part.batch) for part in parts]
        for tensors in named:
            for name, found in tensors.items():
                self._paddings.setdefault(name, set()).update(_paddings(found))
                if LABEL in name or any(_is_integer(tensor) and bool((tensor == LEFT_OUT).any()) for tensor in found):
                    self._labels.add(name)
        tables = [self._counts(tensors, part.size) for part, tensors in zip(parts, named, strict=True)]
        return {words: [table[words] for table in tables] for words in tables[0] if all(words in t for t in tables)}

    def _counts(self, named: Mapping[str, Sequence[Tensor]], size: int) -> dict[str, float]:
        likely: dict[str, float] = {}
        others: dict[str, float] = {}
        for name, tensors in named.items():
            if "[]" in name:
                others[f"entries of {name}"] = float(sum(len(tensor) for tensor in tensors if tensor.ndim))
            for shift, seen in sorted(_views(tensors), key=lambda view: bool(view[0]) != self._shifted):
                if all(_is_integer(tensor) for tensor in seen):
                    labels = likely if name in self._labels else others
                    labels[f"{name} other than {LEFT_OUT}{shift}"] = _others_than(LEFT_OUT, seen)
                    for value in (*OTHERS_LEFT_OUT, *sorted(self._paddings[name])):
                        others[f"{name} other than {value}{shift}"] = _others_than(value, seen)
                if all(_may_be_weights(tensor) for tensor in seen):
                    others[f"the sum of {name}{shift}"] = _total(seen)
        return likely | {EXAMPLES: float(size)} | others


def labels_counted(name: str, *, shifted: bool) -> str:
    """Give the words for labels that torch's losses count: values other than `LEFT_OUT`."""
    return f"{name} other than {LEFT_OUT}{SHIFTED if shifted else ''}"


def _others_than(value: int, tensors: Sequence[Tensor]) -> float:
    return _total([tensor != value for tensor in tensors])


def _views(tensors: Sequence[Tensor]) -> Iterator[tuple[str, Sequence[Tensor]]]:
    """Give tensors whole, and where they have rows without the first of each."""
    if all(tensor.ndim for tensor in tensors):
        yield "", tensors
    if all(tensor.ndim >= ROWS for tensor in tensors):
        yield SHIFTED, [tensor[..., 1:] for tensor in tensors]


def _named(batch: Any, name: str = "batch", *, top: bool = True) -> dict[str, list[Tensor]]:
    """Give the tensors of a batch that may count, by name; those of a list in it share one."""
    import torch

    found: dict[str, list[Tensor]] = {}
    children: list[tuple[str, Any]] = []
    prefix = "" if top else f"{name}."
    if isinstance(batch, torch.Tensor):
        counts = batch.ndim <= ROWS or not batch.is_floating_point()  # pictures and sounds do not
        return {name: [batch.detach().cpu()]} if counts else {}
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
