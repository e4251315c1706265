"""A results folder: who may write there, which runs are finished in it.

A folder is a sweep's own from the first write on (sweep.json marks it), and one sweep's at a time (a lock). Several
sweeps may share a folder one after another: runs are told apart by their ids.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.records.folder_lock import LOCK_FILE, FolderInUseError, held
from bench.records.json_files import write_json
from bench.records.record import FINAL, SCHEMA_VERSION
from bench.records.run_records import NewerRecordError, read_run

MARKER: Final = "sweep.json"
# A file's name behind a dot and with what tempfile adds, or a process id; or a run's that is being copied.
HALF_WRITTEN: Final = re.compile(r"\.(\w+\.(json|csv|parquet)\.([a-z0-9_]{8}|\d+)|[0-9a-f]{12}-[a-z0-9_]{8})$")


class InputError(ValueError):
    """What the user asked for cannot be done; the message is one line: what, where, the alternative."""


def check_output_folder(out: Path) -> None:
    """InputError when results cannot or should not be written there."""
    try:
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out}: is a file, not a folder; name another folder")
        if out.is_dir() and not (out / MARKER).exists() and any(not _is_ours(path) for path in out.iterdir()):
            raise InputError(f"--out {out}: holds files that no sweep wrote; name an empty or a new folder")
        existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
        tempfile.TemporaryDirectory(dir=existing).cleanup()  # asking the file system beats guessing from its mode
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror}); name another folder") from error


def _is_ours(path: Path) -> bool:
    """Whether a sweep that was interrupted before it marked its folder may have left this."""
    return path.name == LOCK_FILE or path.name.startswith(f".{MARKER}.")


@contextmanager
def lock_folder(out: Path, command: Sequence[str]) -> Iterator[int]:
    """Mark the folder as a sweep's and hold it; InputError when another sweep holds it.

    Gives the lock's file descriptor: a run that inherits it keeps the folder locked even if its sweep is killed.
    """
    out.mkdir(parents=True, exist_ok=True)
    try:
        with held(out) as lock:
            remove_leftovers(out)
            write_json(out / MARKER, {"schema": SCHEMA_VERSION, "command": list(command)})
            yield lock
    except FolderInUseError as error:
        raise InputError(
            f"--out {out}: another sweep is writing there ({error}); wait or name another folder"
        ) from error


def remove_leftovers(out: Path) -> None:
    """Remove what a sweep or a merge was writing when it was ended; only whoever holds the lock may ask for it."""
    for folder in ("", "runs", "runs/*"):
        for path in out.glob(f"{folder}/.*" if folder else ".*"):
            if not HALF_WRITTEN.match(path.name):
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def run_folder(out: Path, run_id: str) -> Path:
    """Where everything of one run lies."""
    return out / "runs" / run_id


def read_record(out: Path, run_id: str) -> dict[str, Any] | None:
    """The run's record, if it has a whole one; NewerRecordError for one of a newer version."""
    try:
        return dict(read_run(run_folder(out, run_id)))
    except NewerRecordError:
        raise
    except ValueError:
        return None


def is_finished(out: Path, run_id: str, *, undisturbed: bool = False) -> bool:
    """Whether the run has a record that a new attempt would not change; on request, one whose times count, too."""
    row = (read_record(out, run_id) or {}).get("row", {})
    return row.get("status") in FINAL and not (undisturbed and row.get("disturbed"))
