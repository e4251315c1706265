"""What one update is fed with: its examples, whole or in parts, and the keys of what they share.

A loader of ours yields a `Feed` where a member of the plan asks for the items (`needs_items`); a batch from anywhere
else is divided by its rows (`rows.py`). Dividing items and collating again keeps what a batch holds once for several
examples (a picture with five questions) once in each part.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.execution.rows import Rows, mapping_like, rows_of, take_rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    Collate = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True)
class MicroBatch:
    """A batch of `size` examples; `keys` by scope, one for each example, where they are known."""

    batch: Any
    size: int
    keys: Mapping[str, Sequence[Any]]


class Feed:
    """The examples of one update: `items`, and `collate`, which makes a batch of some of them.

    `rows` where they are rows of a batch that was handed over as it is, which may be one that cannot be divided.
    """

    def __init__(
        self, items: Sequence[Any], collate: Collate, feeder: FeedCollator | None = None, rows: Rows | None = None
    ) -> None:
        self.items, self.collate, self._feeder, self.rows = items, collate, feeder, rows
        self._collated: tuple[int, list[MicroBatch]] | None = None

    def __len__(self) -> int:
        return len(self.items)

    @property
    def problem(self) -> str | None:
        """Why the examples cannot be told apart, or `None`; `len` is a guess then."""
        return self.rows.problem if self.rows else None

    def micro_batches(self, max_size: int) -> list[MicroBatch]:
        """Give batches of at most `max_size` examples each, in order; `PlanError` where they cannot be told apart."""
        if self._feeder is not None:
            self._feeder.max_size = max_size
        if self._collated is None or self._collated[0] != max_size:
            places = range(len(self))
            starts = range(0, len(self), max_size)
            self._collated = max_size, [self.batch_of(places[start : start + max_size]) for start in starts]
        return self._collated[1]

    def batch_of(self, chosen: Sequence[int]) -> MicroBatch:
        """Give a batch of the examples at these positions."""
        if self.problem and len(chosen) < len(self):
            raise PlanError(self.problem)
        items = [self.items[place] for place in chosen]
        return MicroBatch(self.collate(items), len(items), keys_of(items))

    @property
    def collated(self) -> list[MicroBatch]:
        """The batches collated last, or all in one."""
        return self._collated[1] if self._collated else self.micro_batches(len(self))

    def pin_memory(self) -> Feed:
        """Put the batches in memory that a GPU reads while it computes; a `DataLoader` asks for it."""
        if self._collated:
            pinned = [replace(part, batch=map_tensors(part.batch, _pinned)) for part in self._collated[1]]
            self._collated = self._collated[0], pinned
        return self

    def subset(self, chosen: Sequence[int]) -> Feed:
        """Give a feed of the examples at these positions."""
        if self.problem:
            raise PlanError(self.problem)
        return Feed([self.items[place] for place in chosen], self.collate, rows=self.rows)


class FeedCollator:
    """A collate function that keeps the items, and divides a batch as the one before was divided."""

    def __init__(self, collate: Collate) -> None:
        self._collate = collate
        self.max_size: int | None = None

    def __call__(self, items: Sequence[Any]) -> Feed:
        """Collate here, in the loader, so that waiting for it is known as such."""
        feed = Feed(items, self._collate, self)
        feed.micro_batches(self.max_size or len(items))
        return feed


def keys_of(items: Sequence[Any]) -> dict[str, list[Any]]:
    """Give the items' keys by scope, for the scopes that all of them declare."""
    declared = [item.get("keys", {}) if isinstance(item, Mapping) else {} for item in items]
    return {scope: [keys[scope] for keys in declared] for scope in declared[0] if all(scope in k for k in declared)}


def missing_key(item: Any, scope: str) -> str | None:
    """Say that an item has no key for a scope, or `None` if it has."""
    keys = item.get("keys", {}) if isinstance(item, Mapping) else {}
    has = f"these have keys for {', '.join(map(repr, keys))} only" if keys else "these have none"
    return None if scope in keys else f"needs items with keys[{scope!r}], what they share with others: {has}"


def as_feed(batch: Any) -> Feed:
    """Give a feed of what was handed to a step: one already, or a batch of any kind."""
    if isinstance(batch, Feed):
        return batch
    rows = rows_of(batch)
    return Feed(range(rows.size), partial(_rows, batch, rows), rows=rows)


def _rows(batch: Any, rows: Rows, chosen: Sequence[int]) -> Any:
    """Take rows of every tensor; all of them are the batch itself."""
    return batch if len(chosen) == rows.size else take_rows(batch, rows.size, chosen)


def volume(batch: Any) -> int:
    """Count the values (elements, not bytes) in all tensors of a batch, or of what `Tuned.loader` yields."""
    return sum(tensor.numel() for tensor in tensors_of(batch))


def _pinned(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.pin_memory()


def tensors_of(batch: Any) -> list[torch.Tensor]:
    """Give all tensors of a batch, or of what a loader of ours yields."""
    found: list[torch.Tensor] = []
    map_tensors([part.batch for part in batch.collated] if isinstance(batch, Feed) else batch, found.append)
    return found


def map_tensors(batch: Any, change: Callable[[torch.Tensor], Any]) -> Any:
    """Change every tensor of a batch: tensors, mappings, dataclasses, lists and tuples of them."""
    import torch

    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return mapping_like(batch, {key: map_tensors(value, change) for key, value in batch.items()})
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        names = [part.name for part in dataclasses.fields(batch)]
        return replace(batch, **{name: map_tensors(getattr(batch, name), change) for name in names})
    if isinstance(batch, list | tuple):
        parts = [map_tensors(part, change) for part in batch]
        return type(batch)(*parts) if hasattr(batch, "_fields") else type(batch)(parts)
    return batch
