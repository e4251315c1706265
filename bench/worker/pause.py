"""Pausing a run near a deadline and going on from there, in the worker.

Stops come between two updates, so that a checkpoint is a state the uninterrupted run passes through. The order of
the data is kept as the generator's state when the pass began and the number of batches since: the batches before are
drawn again, not read.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from bench.records.checkpoint_folder import (
    DEADLINE,
    PAUSED,
    STATE_FILE,
    checkpoint_folder,
    commit_checkpoint,
    read_progress,
    write_progress,
)
from bench.records.events import EVENTS_FILE
from bench.worker.sections import process_age
from strategies import load_checkpoint, not_resumable, restore_random, save_checkpoint
from strategies.training.checkpoints import checkpoint_bytes

if TYPE_CHECKING:
    from bench.worker.loop import Training
    from strategies import Tuned

__all__ = ["PAUSED", "Batches", "deadline", "pause", "resume"]

BYTES_PER_SECOND: Final = 100e6  # of a slow disk
MARGIN: Final = 2.0
RESUMED_FIELDS: Final = (
    "step", "data_wait_seconds", "warmup_wait_seconds", "first_step_seconds", "compile_seconds", "warm_steps",
    "stops_done",
)  # fmt: skip


class Batches:
    """Batches of one pass after another, and the place among them."""

    def __init__(self, loader: Any, generator: torch.Generator) -> None:
        self._loader, self._generator = loader, generator
        self._iterator: Any = None
        self._start_state = generator.get_state()
        self._offset = 0

    @property
    def num_items(self) -> int:
        """Items of the training set."""
        return len(self._loader.dataset)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._iterator is not None:
            for batch in self._iterator:
                self._offset += 1
                return batch
        self._restart()
        batch = next(self._iterator, None)
        if batch is None:
            raise ValueError("the training set is smaller than one batch; lower --batch-size")
        self._offset = 1
        return batch

    def _restart(self) -> None:
        self._start_state, self._offset = self._generator.get_state(), 0
        self._iterator = iter(self._loader)

    def position(self) -> dict[str, Any]:
        """The generator's state when this pass began, and the batches since."""
        return {"began": self._start_state, "taken": self._offset}

    def seek(self, position: dict[str, Any]) -> None:
        """Go on behind the batches of a place, without reading their items."""
        self._generator.set_state(position["began"])
        self._restart()
        for _ in range(position["taken"]):
            self._iterator._next_index()  # noqa: SLF001 - torch has no public way to draw and not read
        self._offset = position["taken"]


def deadline(tuned: Tuned) -> float:
    """When training has to stop for a checkpoint to be there in time, in seconds since the epoch; inf without a limit.

    A plan that cannot be resumed exactly trains until it is stopped, and starts again.
    """
    limit = float(os.environ.get(DEADLINE, "inf"))
    if math.isinf(limit) or not_resumable(tuned.plan):
        return math.inf
    return limit - MARGIN * checkpoint_bytes(tuned) / BYTES_PER_SECOND


def pause(training: Training, batches: Batches, folder: Path, setup_seconds: float) -> None:
    """Write the checkpoint; it is the section `checkpoint`, outside the time to train."""
    previous, new, clock = read_progress(folder), checkpoint_folder(folder, "new"), training.clock
    shutil.rmtree(new, ignore_errors=True)
    with clock.section("checkpoint"):
        progress = {name: getattr(training, name) for name in RESUMED_FIELDS}
        save_checkpoint(
            training.tuned, new / STATE_FILE, progress=progress, batches=batches.position(), setup_seconds=setup_seconds
        )
    write_progress(
        new, step=training.step, total=training.total_steps, events_bytes=(folder / EVENTS_FILE).stat().st_size,
        seconds={name: clock.seconds.get(name, 0.0) for name in ("warmup", "train", "eval")},
        wall_seconds=process_age() + (previous["wall_seconds"] if previous else 0.0),
    )  # fmt: skip
    commit_checkpoint(folder)


def resume(training: Training, batches: Batches, folder: Path, setup_seconds: float) -> float:
    """Go to where the run paused, if it did; gives the set-up time that counts, that of the first start."""
    progress = read_progress(folder)
    if progress is None:
        return setup_seconds
    with training.clock.section("checkpoint"):
        saved = load_checkpoint(training.tuned, checkpoint_folder(folder) / STATE_FILE)
        batches.seek(saved["batches"])
        for name, value in saved["progress"].items():
            setattr(training, name, value)
        training.clock.seconds.update(progress["seconds"])
        restore_random(saved["random"], training.tuned.device)
    return float(saved["setup_seconds"])
