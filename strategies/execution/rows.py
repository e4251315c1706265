"""How many examples a batch holds, and a batch of some of them.

A tensor that stands by itself is a field, with one row for each example; scalars belong to all of them. A list (or
tuple) inside the batch is a list of fields where its tensors have that many rows, and holds an entry for each example
(detection targets, texts, pictures of many sizes) where it has that many entries. What can be read in both ways, or in
none, is not divided: `Rows.problem` says why, and the whole batch passes as it is.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import UserDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

UNKNOWN = 2  # examples of a batch that says nothing: more than one, so whoever divides it is told
WAY_OUT = (
    "take batches from tuned.loader(…), which divides the items and collates each part, or leave out what divides it"
)


@dataclass(frozen=True)
class Rows:
    """What a batch says of its examples: how many there are, or why it cannot be divided."""

    size: int
    problem: str | None = None


def rows_of(batch: Any) -> Rows:
    """Count the examples of a batch: tensors, mappings, dataclasses, lists and tuples of them."""
    parts = list(_parts(batch, top=True))
    tensors = [part for part in parts if _is_tensor(part) and part.ndim]
    lists = [part for part in parts if isinstance(part, list | tuple)]
    lengths = sorted({len(tensor) for tensor in tensors})
    if any(str(tensor.layout) != "torch.strided" for tensor in tensors):
        return _undivided(lengths, "a batch with a sparse or nested tensor cannot be divided")
    if len(lengths) > 1:
        told = " and ".join(map(str, lengths))
        return _undivided(lengths, f"a batch whose tensors have {told} rows cannot be divided")
    size = lengths[0] if lengths else _size_of_lists(lists)
    if size is None:
        return _undivided([], "a batch without a number of rows that all share cannot be divided")
    unclear = [part for part in lists if not (_is_field(part, size) or len(part) == size) and _tensors(part)]
    unclear += [part for part in lists if _is_field(part, size) and len(part) == size > 1 and _is_uniform(part)]
    if unclear:
        return _undivided(
            [size],
            f"a list of {len(unclear[0])} in a batch of {size} may hold examples or fields, so it cannot be divided "
            "(stack its tensors, or name fields in a mapping)",
        )
    return Rows(size)


def take_rows(batch: Any, size: int, chosen: Sequence[int], *, top: bool = True) -> Any:
    """Give a batch of the examples at the positions `chosen`, out of one of `size` examples."""

    def inner(value: Any) -> Any:
        return take_rows(value, size, chosen, top=False)

    taken = batch
    if _is_tensor(batch):
        taken = batch[list(chosen)] if batch.ndim else batch
    elif isinstance(batch, Mapping):
        taken = mapping_like(batch, {key: inner(value) for key, value in batch.items()})
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        taken = replace(batch, **{part.name: inner(getattr(batch, part.name)) for part in dataclasses.fields(batch)})
    elif isinstance(batch, tuple) and hasattr(batch, "_fields"):
        taken = type(batch)(*map(inner, batch))
    elif isinstance(batch, list | tuple):
        entries = _holds_examples(batch, size, top=top)
        taken = type(batch)(batch[place] for place in chosen) if entries else type(batch)(map(inner, batch))
    return taken


def mapping_like(batch: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """Give a mapping of a batch's own kind with other values, as code may take `batch.input_ids`; else a dictionary."""
    if type(batch) is dict or not isinstance(batch, dict | UserDict):
        return values
    made = copy.copy(batch)
    for key, value in values.items():
        made[key] = value
        if key in (shown := getattr(made, "__dict__", {})):  # of a kind whose entries are attributes, too
            shown[key] = value
    return made


def _parts(batch: Any, *, top: bool) -> Iterator[Any]:
    """Give the tensors that stand by themselves, and lists whose entries may be examples, whole."""
    if _is_tensor(batch):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _parts(value, top=False)
    elif dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        for part in dataclasses.fields(batch):
            yield from _parts(getattr(batch, part.name), top=False)
    elif isinstance(batch, list | tuple):
        if hasattr(batch, "_fields") or (top and not _are_records(batch)):
            for part in batch:
                yield from _parts(part, top=False)
        elif batch:
            yield batch


def _size_of_lists(lists: Sequence[Any]) -> int | None:
    """Count the examples of a batch whose tensors are all in lists."""
    records = {len(part) for part in lists if _are_records(part)}
    lengths = {len(part) for part in lists if isinstance(part, list) or _tensors(part)}
    rows = {len(tensor) if tensor.ndim else None for part in lists for tensor in _tensors(part)}
    as_fields = len(rows) == 1 and None not in rows
    as_examples = len(lengths) == 1 and all(_is_uniform(part) for part in lists)
    if len(records) == 1:
        return records.pop()
    if as_fields and (not as_examples or lengths == {1}):
        return rows.pop()
    return lengths.pop() if as_examples and not as_fields else None


def _holds_examples(part: Sequence[Any], size: int, *, top: bool) -> bool:
    """Say whether a list has an entry for each of `size` examples."""
    if len(part) != size:
        return False
    if _are_records(part):
        return True
    return not top and (isinstance(part, list) or bool(_tensors(part))) and not _is_field(part, size)


def _are_records(part: Sequence[Any]) -> bool:
    """Say whether a list holds mappings, each with all that belongs to an example."""
    return bool(part) and all(isinstance(entry, Mapping) for entry in part)


def _is_field(part: Sequence[Any], size: int) -> bool:
    """Say whether the tensors of a list have a row for each of `size` examples."""
    found = _tensors(part)
    lengths = {len(tensor) for tensor in found if tensor.ndim}
    return lengths == {size} and not _are_records(part)


def _is_uniform(part: Sequence[Any]) -> bool:
    """Say whether the entries of a list are alike, as examples are."""
    kinds = {(tensor.ndim, tensor.dtype) for tensor in part if _is_tensor(tensor)}
    return len(kinds) <= 1 and len({type(entry) for entry in part}) == 1


def _tensors(value: Any) -> list[Tensor]:
    if _is_tensor(value):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for part in value.values() for tensor in _tensors(part)]
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, list | tuple) else []


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _undivided(lengths: Sequence[int], problem: str) -> Rows:
    return Rows(max(lengths, default=UNKNOWN), f"{problem}: {WAY_OUT}")
