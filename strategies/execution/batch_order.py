"""In which order a loader goes through its items: batches of groups that stay together, near others of like length.

Members of a plan change one `BatchOrder` by turns, so that grouping and sorting go together. Drawn anew in every pass,
from the loader's generator alone: the same seed gives the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


@dataclass(eq=False)
class BatchOrder:
    """Batches of positions in a data set of `size` items, `batch_size` each.

    groups: positions that stay together (each item alone, unless `group_by` says otherwise).
    lengths: of each item; with them, `pool` batches at a time are sorted by length, and then come in random order.
    """

    size: int
    batch_size: int
    generator: torch.Generator
    drop_last: bool = True
    groups: list[list[int]] = field(default_factory=list)
    lengths: Sequence[int] = ()
    pool: int = 1

    def group_by(self, keys: Sequence[Any]) -> None:
        """Let items with equal keys follow each other."""
        groups: dict[Any, list[int]] = {}
        for place, key in enumerate(keys):
            groups.setdefault(key, []).append(place)
        self.groups = list(groups.values())

    def __len__(self) -> int:
        return self.size // self.batch_size if self.drop_last else -(-self.size // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        rank = self._permutation(self.size)
        groups = [sorted(group, key=rank.__getitem__) for group in self.groups] or [[place] for place in rank]
        drawn = [groups[place] for place in self._permutation(len(groups))]
        if self.drop_last:  # before sorting: else those that fall away would be the longest, in every pass
            drawn = self._take_first(drawn, len(self) * self.batch_size)
        if self.lengths:
            drawn = [group for pool in self._pools(drawn) for group in sorted(pool, key=self._longest)]
        places = list(chain.from_iterable(drawn))
        batches = [places[start : start + self.batch_size] for start in range(0, len(places), self.batch_size)]
        return iter([batches[place] for place in self._permutation(len(batches))] if self.lengths else batches)

    def _permutation(self, number: int) -> list[int]:
        import torch

        drawn: list[int] = torch.randperm(number, generator=self.generator).tolist()
        return drawn

    def _take_first(self, groups: Sequence[list[int]], count: int) -> list[list[int]]:
        """Give the first units that hold `room` items, the last of them cut."""
        kept: list[list[int]] = []
        for group in groups:
            kept += [group[:count]] if count else []
            count -= min(count, len(group))
        return kept

    def _pools(self, groups: Sequence[list[int]]) -> Iterator[list[list[int]]]:
        """Cut units into pools of about `pool` batches."""
        pool: list[list[int]] = []
        items = 0
        for group in groups:
            pool.append(group)
            items += len(group)
            if items >= self.pool * self.batch_size:
                yield pool
                pool, items = [], 0
        yield pool

    def _longest(self, group: Sequence[int]) -> int:
        return max(self.lengths[place] for place in group)


def order_of(options: dict[str, Any]) -> tuple[BatchOrder, dict[str, Any]]:
    """Give the order that a loader's options name, and the options with it in place of `shuffle`."""
    order = options.get("batch_sampler")
    if isinstance(order, BatchOrder):
        return order, options
    rest = {key: value for key, value in options.items() if key not in {"batch_size", "shuffle", "drop_last"}}
    made = BatchOrder(len(options["dataset"]), options["batch_size"], options["generator"], options["drop_last"])
    return made, {**rest, "batch_sampler": made}
