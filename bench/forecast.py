"""What recipes will need on a task, predicted before anything runs.

The batch that counts is the largest one a recipe's own loader makes: looked for in the order of the run, among the
first few hundred batches, and once for all recipes that are fed alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import torch
from torch.utils.data import ConcatDataset

from bench.task import Task
from strategies import Plan, volume
from strategies.loading import training_loader
from strategies.predicting import Prediction, predict

LOOKED_AT: Final = 300  # batches


@dataclass
class Forecaster:
    """Predicts plans on a task's items, on a device that need not be there."""

    task: Task
    device: str
    epochs: float | None = None  # None: the task's
    max_steps: int | None = None
    seed: int = 0
    _batches: dict[Any, Any] = field(default_factory=dict)

    def __call__(self, plan: Plan, batch_sizes: Sequence[int]) -> list[Prediction]:
        """Predict one update for each batch size.

        Raises `PlanError` where the plan cannot be, `UnpredictableError` where torch cannot do it without values.
        """
        batches = [self.largest_batch(plan, size) for size in batch_sizes]
        steps = self.steps(batch_sizes[0])
        share = min(1.0, steps * batch_sizes[0] / len(self.items))
        return predict(
            plan, self.task.build_model, self.task.loss, batches, device=self.device, total_steps=steps,
            distinct={scope: round(share * count) for scope, count in self.distinct.items()},
        )  # fmt: skip

    def steps(self, batch_size: int) -> int:
        """Optimizer updates of the whole training."""
        epochs = self.task.default_epochs if self.epochs is None else self.epochs
        wanted = max(1, round(epochs * (len(self.items) // batch_size)))
        return min(wanted, self.max_steps or wanted)

    @cached_property
    def items(self) -> Any:
        """The training set."""
        return self.task.train_set()

    @cached_property
    def distinct(self) -> dict[str, int]:
        """How many different keys the items declare, by scope."""
        keys: dict[str, set[Any]] = {}
        for place in range(len(self.items)):
            for scope, key in self.items[place].get("keys", {}).items():
                keys.setdefault(scope, set()).add(key)
        return {scope: len(found) for scope, found in keys.items()}

    def largest_batch(self, plan: Plan, batch_size: int) -> Any:
        """The largest of the first batches that the plan's loader makes."""
        feeding = tuple(member for member in plan.members if member.kind == "data")
        if (feeding, batch_size) not in self._batches:
            self._batches[feeding, batch_size] = self._largest(feeding, batch_size)
        return self._batches[feeding, batch_size]

    def _largest(self, feeding: Sequence[Any], batch_size: int) -> Any:
        times = -(-batch_size // len(self.items))  # a small set is seen more than once
        loader = training_loader(
            feeding, self.items if times == 1 else ConcatDataset([self.items] * times), batch_size=batch_size,
            collate=self.task.collate, generator=torch.Generator().manual_seed(self.seed), drop_last=True,
            pin_memory=False,
        )  # fmt: skip
        return max((batch for batch, _ in zip(loader, range(LOOKED_AT), strict=False)), key=volume)
