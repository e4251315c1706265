"""What recipes will need on a task, predicted before anything runs.

The batch that counts is the largest one a recipe's own loader makes: looked for in the order of the run, among the
first few hundred batches, and once for all recipes that are fed alike.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Final

import torch
from torch.utils.data import ConcatDataset

from bench.task import Task, load_task, task_text
from strategies import Plan, PlanError, compose, volume
from strategies.prediction.predict import Prediction, predict
from strategies.prediction.values import UnpredictableError
from strategies.training.loader import training_loader

MAX_BATCHES: Final = 300  # batches
MIN_SECONDS_SAVED: Final = 12.0  # seconds won: what processes of their own take to start


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
        total = max(1, round(epochs * (len(self.items) // batch_size)))
        return min(total, self.max_steps or total)

    @cached_property
    def items(self) -> Any:
        """The training set."""
        return self.task.train_set()

    @cached_property
    def distinct(self) -> dict[str, int]:
        """How many different keys the items declare, by scope."""
        keys: dict[str, set[Any]] = {}
        for index in range(len(self.items)):
            for scope, key in self.items[index].get("keys", {}).items():
                keys.setdefault(scope, set()).add(key)
        return {scope: len(found) for scope, found in keys.items()}

    def largest_batch(self, plan: Plan, batch_size: int) -> Any:
        """The largest of the first batches that the plan's loader makes."""
        data_members = tuple(member for member in plan.members if member.kind == "data")
        if (data_members, batch_size) not in self._batches:
            self._batches[data_members, batch_size] = self._largest(data_members, batch_size)
        return self._batches[data_members, batch_size]

    def _largest(self, data_members: Sequence[Any], batch_size: int) -> Any:
        times = -(-batch_size // len(self.items))  # a small set is seen more than once
        loader = training_loader(
            data_members, self.items if times == 1 else ConcatDataset([self.items] * times), batch_size=batch_size,
            collate=self.task.collate, generator=torch.Generator().manual_seed(self.seed), drop_last=True,
            pin_memory=False,
        )  # fmt: skip
        return max((batch for batch, _ in zip(loader, range(MAX_BATCHES), strict=False)), key=volume)


def predict_all(forecaster: Forecaster, plans: Sequence[str], batch_size: int) -> dict[str, Prediction]:
    """What an update of each plan needs; plans that cannot be predicted are left out.

    The first one tells how long all will take; the others share the processors where that is worth it.
    """
    unique_plans = list(dict.fromkeys(plans))
    if not unique_plans or batch_size > len(forecaster.items):
        return {}
    started = time.perf_counter()
    predictions = [_predict_or_none(forecaster, batch_size, unique_plans[0])]
    seconds = (time.perf_counter() - started) * (len(unique_plans) - 1)
    workers = max(1, min(os.cpu_count() or 1, len(unique_plans) - 1))
    if seconds - seconds / workers < MIN_SECONDS_SAVED:
        predictions += [_predict_or_none(forecaster, batch_size, plan) for plan in unique_plans[1:]]
    else:
        print(f"predicting what {len(unique_plans)} recipes need, about {seconds / workers:.0f} s", file=sys.stderr)
        initargs = (task_text(forecaster.task), forecaster.device, forecaster.epochs, forecaster.max_steps)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, spawn, initializer=_init_worker, initargs=initargs) as pool:
            predictions += pool.map(partial(_predict_in_worker, batch_size), unique_plans[1:])
    return {plan: prediction for plan, prediction in zip(unique_plans, predictions, strict=True) if prediction}


def _predict_or_none(forecaster: Forecaster, batch_size: int, plan: str) -> Prediction | None:
    """None where it cannot be: what stands in the way of a run is told by the run."""
    try:
        return forecaster(compose(plan), [batch_size])[0]
    except (PlanError, UnpredictableError):
        return None


_worker_state: dict[str, Forecaster] = {}  # of a child process


def _init_worker(task: str, device: str, epochs: float | None, max_steps: int | None) -> None:
    torch.set_num_threads(1)
    _worker_state["forecaster"] = Forecaster(load_task(task), device, epochs, max_steps)


def _predict_in_worker(batch_size: int, plan: str) -> Prediction | None:
    return _predict_or_none(_worker_state["forecaster"], batch_size, plan)
