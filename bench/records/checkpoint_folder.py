"""Where a paused run stands: a folder `checkpoint` in the run's own, whole or not there.

The worker writes it, the sweep's process (without torch) reads it. What the log says beyond the checkpoint is cut off
when the run goes on, so that its events are those of one run.
"""

from __future__ import annotations

import os
import shutil
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from bench.records.events import EVENTS_FILE
from bench.records.record import read_json

DEADLINE: Final = "TUNEMATRIX_DEADLINE"  # environment variable of a worker: seconds since the epoch
PAUSED: Final = 75  # exit status of a worker that paused, and of the sweep: try again later (EX_TEMPFAIL)
STATE_FILE: Final = "state.pt"
PROGRESS_FILE: Final = "place.json"


def checkpoint_folder(folder: Path, kind: str = "") -> Path:
    """The checkpoint of the run in `folder`; kind: "new" is being written, "old" is about to go."""
    return folder / f"checkpoint{kind and '.'}{kind}"


def commit_checkpoint(folder: Path) -> None:
    """Let the new checkpoint take the place of the old one; killed at any moment, this leaves a whole one."""
    new, current, old = (checkpoint_folder(folder, kind) for kind in ("new", "", "old"))
    shutil.rmtree(old, ignore_errors=True)
    if current.exists():
        current.rename(old)
    new.rename(current)
    shutil.rmtree(old, ignore_errors=True)


def read_progress(folder: Path) -> dict[str, Any] | None:
    """What a paused run says of itself: step, total, log length, seconds; None where there is nothing to go on from."""
    current, old = checkpoint_folder(folder), checkpoint_folder(folder, "old")
    if not current.exists() and old.exists():  # killed between two renames
        old.rename(current)
    if not (current / PROGRESS_FILE).exists():
        return None
    progress: dict[str, Any] = read_json(current / PROGRESS_FILE)
    return progress if progress["torch"] == version("torch") else None


def truncate_log(folder: Path, progress: dict[str, Any]) -> None:
    """Drop the events after the checkpoint."""
    os.truncate(folder / EVENTS_FILE, progress["events_bytes"])


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a run that has its record."""
    for kind in ("new", "", "old"):
        shutil.rmtree(checkpoint_folder(folder, kind), ignore_errors=True)
