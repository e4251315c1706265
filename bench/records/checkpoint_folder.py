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
from bench.records.files import put, sync_tree
from bench.records.json_files import SEAL, is_intact, read_json, sealed, write_json
from strategies.saving.manifest import file_hash

DEADLINE: Final = "TUNEMATRIX_DEADLINE"  # environment variable of a worker: seconds since the epoch
PAUSED: Final = 75  # exit status of a worker that paused, and of the sweep: try again later (EX_TEMPFAIL)
STATE_FILE: Final = "state.pt"
PROGRESS_FILE: Final = "place.json"
FIELDS: Final = {
    "step": int, "total": int, "events_bytes": int, "seconds": dict, "wall_seconds": float,
    "torch": str, "sha256": str, SEAL: str,
}  # fmt: skip


class UnusableCheckpointError(Exception):
    """A checkpoint that is there and cannot be gone on from; the message says why."""


def checkpoint_folder(folder: Path, kind: str = "") -> Path:
    """The checkpoint of the run in `folder`; kind: "new" is being written, "old" is about to go."""
    return folder / f"checkpoint{kind and '.'}{kind}"


def write_progress(new: Path, **values: Any) -> None:
    """Say in a new checkpoint, whose state is written, where its run stands: FIELDS but for the last three."""
    facts = {"torch": version("torch"), "sha256": file_hash(new / STATE_FILE)}
    write_json(new / PROGRESS_FILE, sealed({**values, **facts}))


def commit_checkpoint(folder: Path) -> None:
    """Let the new checkpoint take the place of the old one; killed at any moment, this leaves a whole one."""
    new, current, old = (checkpoint_folder(folder, kind) for kind in ("new", "", "old"))
    shutil.rmtree(old, ignore_errors=True)
    sync_tree(new)
    if current.exists():
        current.rename(old)
    put(new, current)
    shutil.rmtree(old, ignore_errors=True)


def read_progress(folder: Path) -> dict[str, Any] | None:
    """What a paused run says of itself: step, total, log length, seconds; None where there is nothing to go on from."""
    try:
        return find_progress(folder)
    except UnusableCheckpointError:
        return None


def find_progress(folder: Path) -> dict[str, Any] | None:
    """The same; UnusableCheckpointError says why a checkpoint that is there cannot be gone on from.

    Its state is not read: `verify` does that.
    """
    current, old = checkpoint_folder(folder), checkpoint_folder(folder, "old")
    if not current.exists() and old.exists():  # killed between two renames
        old.rename(current)
    if not current.exists():
        return None
    try:
        progress = read_json(current / PROGRESS_FILE)
    except (OSError, ValueError) as error:
        raise UnusableCheckpointError(f"damaged, {PROGRESS_FILE} cannot be read") from error
    if not isinstance(progress, dict) or not all(isinstance(progress.get(key), kind) for key, kind in FIELDS.items()):
        raise UnusableCheckpointError(f"damaged, or of another version of the suite: {PROGRESS_FILE} has other fields")
    if not is_intact(progress):
        raise UnusableCheckpointError(f"damaged, {PROGRESS_FILE} is not what was written")
    if progress["torch"] != version("torch"):
        raise UnusableCheckpointError(f"of torch {progress['torch']}, this is {version('torch')}")
    return progress


def verify(folder: Path, progress: dict[str, Any]) -> None:
    """Hold the checkpoint's state, and the log that it goes on from, to what the checkpoint says of them.

    UnusableCheckpointError names what is missing or damaged.
    """
    state, log = checkpoint_folder(folder) / STATE_FILE, folder / EVENTS_FILE
    for path in (state, log):
        if not path.is_file():
            raise UnusableCheckpointError(f"damaged, {path.name} is missing")
    if log.stat().st_size < progress["events_bytes"]:
        raise UnusableCheckpointError(f"damaged, {log.name} is shorter than it was")
    if file_hash(state) != progress["sha256"]:
        raise UnusableCheckpointError(f"damaged, {state.name} is not what was written")


def truncate_log(folder: Path, progress: dict[str, Any]) -> None:
    """Drop the events after the checkpoint."""
    os.truncate(folder / EVENTS_FILE, progress["events_bytes"])


def remove_checkpoint(folder: Path) -> None:
    """Remove the checkpoint of a run that has its record."""
    for kind in ("new", "", "old"):
        shutil.rmtree(checkpoint_folder(folder, kind), ignore_errors=True)
