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
PLACE_FILE: Final = "place.json"


def checkpoint_folder(folder: Path, kind: str = "") -> Path:
    """The checkpoint of the run in `folder`; kind: "new" is being written, "old" is about to go."""
    return folder / f"checkpoint{kind and '.'}{kind}"


def put_in_place(folder: Path) -> None:
    """Let the new checkpoint take the place of the old one; killed at any moment, this leaves a whole one."""
    new, now, old = (checkpoint_folder(folder, kind) for kind in ("new", "", "old"))
    shutil.rmtree(old, ignore_errors=True)
    if now.exists():
        now.rename(old)
    new.rename(now)
    shutil.rmtree(old, ignore_errors=True)


def place_of(folder: Path) -> dict[str, Any] | None:
    """What a paused run says of itself: step, total, log length, seconds; None where there is nothing to go on from."""
    now, old = checkpoint_folder(folder), checkpoint_folder(folder, "old")
    if not now.exists() and old.exists():  # killed between two renames
        old.rename(now)
    if not (now / PLACE_FILE).exists():
        return None
    place: dict[str, Any] = read_json(now / PLACE_FILE)
    return place if place["torch"] == version("torch") else None


def cut_log(folder: Path, place: dict[str, Any]) -> None:
    """Drop the events after the checkpoint."""
    os.truncate(folder / EVENTS_FILE, place["events_bytes"])


def forget(folder: Path) -> None:
    """Remove the checkpoint of a run that has its record."""
    for kind in ("new", "", "old"):
        shutil.rmtree(checkpoint_folder(folder, kind), ignore_errors=True)
