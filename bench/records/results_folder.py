"""A results folder: who may write there, which runs are finished in it.

A folder is a sweep's own from the first write on (sweep.json marks it), and one sweep's at a time (a lock). Several
sweeps may share a folder one after another: runs are told apart by their ids.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench.records.record import FINAL, SCHEMA_VERSION, read_json, write_json

MARKER: Final = "sweep.json"
RECORD_FILE: Final = "record.json"


class InputError(ValueError):
    """What the user asked for cannot be done; the message is one line: what, where, the alternative."""


def check_output_folder(out: Path) -> None:
    """InputError when results cannot or should not be written there."""
    try:
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out}: is a file, not a folder; name another folder")
        if out.is_dir() and any(out.iterdir()) and not (out / MARKER).exists():
            raise InputError(f"--out {out}: holds files that no sweep wrote; name an empty or a new folder")
        existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
        tempfile.TemporaryDirectory(dir=existing).cleanup()  # asking the file system beats guessing from its mode
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror}); name another folder") from error


@contextmanager
def lock_folder(out: Path, command: Sequence[str]) -> Iterator[int]:
    """Mark the folder as a sweep's and hold it; InputError when another sweep holds it.

    Gives the lock's file descriptor: a run that inherits it keeps the folder locked even if its sweep is killed.
    """
    import fcntl  # not on Windows, where the command line has a word for it

    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"--out {out}: another sweep is writing there; wait or name another folder") from error
        write_json(out / MARKER, {"schema": SCHEMA_VERSION, "command": list(command)})
        yield lock.fileno()


def run_folder(out: Path, run_id: str) -> Path:
    """Where everything of one run lies."""
    return out / "runs" / run_id


def read_record(out: Path, run_id: str) -> dict[str, Any] | None:
    """The run's record, if it has one."""
    path = run_folder(out, run_id) / RECORD_FILE
    return read_json(path) if path.exists() else None


def is_finished(out: Path, run_id: str, *, undisturbed: bool = False) -> bool:
    """Whether the run has a record that a new attempt would not change; on request, one whose times count, too."""
    row = (read_record(out, run_id) or {}).get("row", {})
    return row.get("status") in FINAL and not (undisturbed and row.get("disturbed"))
