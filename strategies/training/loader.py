"""The loader of a plan: shuffled batches, in the order and of the shape that the plan's members want."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from strategies.errors import PlanError
from strategies.execution.feed import FeedCollator

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch
    from torch.utils.data import DataLoader

    from strategies.protocol import Strategy


def training_loader(
    members: Sequence[Strategy], dataset: Any, *, batch_size: int, collate: Callable[..., Any],
    generator: torch.Generator, drop_last: bool, pin_memory: bool,
) -> DataLoader[Any]:  # fmt: skip
    """Make a loader whose order comes from `generator` alone; `PlanError` where the items lack what a member needs."""
    import torch
    from torch.utils.data import DataLoader

    options: dict[str, Any] = {
        "dataset": dataset, "batch_size": batch_size, "collate_fn": collate, "generator": generator,
        "drop_last": drop_last, "shuffle": True, "num_workers": 0, "pin_memory": pin_memory,
    }  # fmt: skip
    if drop_last and len(dataset) < batch_size:
        raise PlanError(f"{len(dataset)} items make no batch of {batch_size}: lower batch_size, or drop_last=False")
    with torch.random.fork_rng(devices=[]):  # a look at an item draws nothing from the stream of training
        item = dataset[0]
    for member in members:
        reason = member.unsupported_item(item)
        if reason:
            raise PlanError(f"{member.name}: {reason}")
        options = member.loader(options)
    if any(member.needs_items for member in members):
        options["collate_fn"] = FeedCollator(options["collate_fn"])
    return DataLoader(**options)
