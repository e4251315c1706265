"""The training and evaluation loops: short, the same for every recipe, without a sync per step.

The loss stays on the device and is read every 20 steps, one step late, so reading it never makes the device
wait; divergence is therefore found up to 20 steps after it happened.
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bench.records.events import EventWriter
from bench.task import Prediction, Task
from bench.worker.sections import Clock
from strategies import volume

if TYPE_CHECKING:
    from strategies import Tuned

READ_EVERY = 20
WARMUP_STEPS = 10
MID_EVALUATIONS = 4


class DivergedError(Exception):
    """The training loss became NaN or infinite."""


class PausedError(Exception):
    """The deadline is near: training stopped after an update."""


def cycle(loader: Any) -> Iterator[Any]:
    """Batches of one pass after another; a loader without a whole batch is an error."""
    while True:
        batch = None
        for batch in loader:
            yield batch
        if batch is None:
            raise ValueError("the training set is smaller than one batch; lower --batch-size")


@dataclass
class Training:
    """One run's training loop and what it measures."""

    tuned: Tuned
    task: Task
    clock: Clock
    emit: EventWriter
    batch_size: int
    total_steps: int
    data_wait_seconds: float = 0.0
    warmup_wait_seconds: float = 0.0
    first_step_seconds: float | None = None
    compile_seconds: float | None = None
    step: int = 0
    largest_batch: Any = ()
    deadline: float = math.inf  # seconds since the epoch
    warm_steps: int = 0  # steps in the section `warmup`
    stops_done: int = 0
    checkpoint: Callable[[], object] | None = None  # called before evaluations, so that none of them loses updates
    _pending: tuple[int, Tensor] | None = None

    def run(self, batches: Iterator[Any], tune_items: Sequence[Any]) -> None:
        """Train to the last step, pausing the clock for evaluations on the tune set; `PausedError` at the deadline."""
        first = min(WARMUP_STEPS, self.total_steps)
        stops = {max(first, self.total_steps * n // MID_EVALUATIONS) for n in range(1, MID_EVALUATIONS + 1)}
        to_do = sorted(stops)[self.stops_done :]
        if to_do and self.step < to_do[0]:  # a process that goes on warms up again, but not beyond an evaluation
            start_step, waited = self.step, self.data_wait_seconds
            try:
                with self.clock.section("warmup"):
                    self._advance(batches, min(start_step + WARMUP_STEPS, to_do[0]))
            finally:
                self.warm_steps += self.step - start_step
                self.warmup_wait_seconds += self.data_wait_seconds - waited
        for stop in to_do:
            with self.clock.section("train"):
                self._advance(batches, stop)
            self._pause_if_due(self.clock.seconds.get("eval", 0.0) / max(1, self.stops_done))
            if self.checkpoint:
                self.checkpoint()
            with self.clock.section("eval"):
                predictions = predict(self.tuned, self.task, tune_items, self.batch_size, self.emit)
            right = sum(p["prediction"] == p["target"] for p in predictions)
            if predictions:
                self._history("tune", "accuracy", right / len(predictions))
            self.stops_done += 1

    def _pause_if_due(self, needed_seconds: float = 0.0) -> None:
        """Stop between two updates when the deadline is nearer than what comes next; asks the host's clock alone."""
        if time.time() + needed_seconds >= self.deadline:
            self._read_pending()
            self.clock.synchronise()
            raise PausedError

    def _advance(self, batches: Iterator[Any], stop: int) -> None:
        compiled_before = compiler_seconds()
        while self.step < stop:
            started = time.perf_counter()
            batch = next(batches)
            self.data_wait_seconds += time.perf_counter() - started
            if volume(batch) > volume(self.largest_batch):
                self.largest_batch = batch
            loss = self.tuned.step(self.task.loss, batch)
            if self.first_step_seconds is None:
                self.clock.synchronise()
                self.first_step_seconds = time.perf_counter() - started
            self.step += 1
            self.emit.alive()
            self._read_pending()
            if self.step % READ_EVERY == 0 or self.step in {1, stop}:
                self._pending = (self.step, loss)
            if self.step < stop:
                self._pause_if_due()
        self._read_pending()
        if compiled := compiler_seconds() - compiled_before:
            self.compile_seconds = (self.compile_seconds or 0.0) + compiled

    def _read_pending(self) -> None:
        if self._pending is None:
            return
        (step, loss), self._pending = self._pending, None
        value = float(loss)
        if not math.isfinite(value):
            raise DivergedError(f"loss became {value} by step {step} of {self.total_steps}")
        self._history("train", "loss", value, step)
        seconds = self.clock.elapsed("warmup", "train")
        rate = self.step * self.batch_size / seconds
        self.emit("step", step=step, total=self.total_steps, loss=value, samples_per_second=rate)

    def _history(self, split: str, metric: str, value: float, step: int | None = None) -> None:
        seconds = self.clock.elapsed("warmup", "train")
        self.emit("history", step=step or self.step, train_seconds=seconds, split=split, metric=metric, value=value)


def compiler_seconds() -> float:
    """Seconds this process has spent in torch.compile so far."""
    if "torch._dynamo.utils" not in sys.modules:
        return 0.0
    spent = sys.modules["torch._dynamo.utils"].compilation_time_metrics
    return sum(sum(spent.get(part, ())) for part in ("_compile.compile_inner", "backward._backward_impl"))


def predict(tuned: Tuned, task: Task, items: Sequence[Any], batch_size: int, emit: EventWriter) -> list[Prediction]:
    """Predictions for every item, in order, in batches of the training size."""
    predictions: list[Prediction] = []
    with tuned.evaluating():
        for start in range(0, len(items), batch_size):
            emit.alive()
            chunk = [items[i] for i in range(start, min(start + batch_size, len(items)))]
            batch = {key: value.to(tuned.device) for key, value in task.collate(chunk).items()}
            predictions += task.predict(tuned.model, batch)
    return predictions


def seed_everything(seed: int) -> None:
    """Seed Python's and torch's global generators (data order has a generator of its own)."""
    random.seed(seed)
    torch.manual_seed(seed)
