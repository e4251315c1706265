"""One sweep at a time in a results folder: a lock that says who holds it.

A run inherits the lock, so that the folder stays locked while anything still writes there. What is left of a sweep that
is gone (a run that heeds no signal, a daemon that a task started) is ended by the next one.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final, TextIO

import psutil

LOCK_FILE: Final = ".lock"
PATIENCE_SECONDS: Final = 5.0  # for what is left of a sweep to end
SAME_START_SECONDS: Final = 2.0  # a process of that number that began at another time is another process


class FolderInUseError(Exception):
    """Another sweep holds the folder; the message says which."""


@contextmanager
def held(folder: Path) -> Iterator[int]:
    """Hold a folder's lock; gives its file descriptor. FolderInUseError where another process holds it."""
    with (folder / LOCK_FILE).open("a+", encoding="utf-8") as lock:
        if not _is_taken(lock):
            owner = _read_owner(lock)
            if not (_is_gone(owner) and _take_over(lock)):
                raise FolderInUseError(_words(owner))
        lock.truncate(0)
        json.dump(_this_process(), lock)
        lock.flush()
        try:
            yield lock.fileno()
        finally:
            lock.truncate(0)


def _is_taken(lock: TextIO) -> bool:
    import fcntl  # not on Windows, where the command line has a word for it

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _this_process() -> dict[str, Any]:
    process = psutil.Process()
    since = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return {"pid": process.pid, "host": socket.gethostname(), "since": since, "born": process.create_time()}


def _read_owner(lock: TextIO) -> dict[str, Any]:
    """Who wrote the lock last; empty where that cannot be read."""
    lock.seek(0)
    try:
        owner = json.load(lock)
    except ValueError:
        return {}
    known = {"pid": int, "host": str, "since": str, "born": float}
    whole = isinstance(owner, dict) and all(isinstance(owner.get(key), kind) for key, kind in known.items())
    return owner if whole else {}


def _is_gone(owner: dict[str, Any]) -> bool:
    """Whether the sweep that wrote the lock ended on this machine, so that what holds it now is left of it."""
    if not owner or owner["host"] != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(owner["pid"]).create_time() - owner["born"]) > SAME_START_SECONDS)
    except psutil.NoSuchProcess:
        return True


def _take_over(lock: TextIO) -> bool:
    """End what is left of the lock's last owner; whether the lock could be had then."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not _is_taken(lock):
        if time.monotonic() > end:
            return False
        for process in _holders(Path(lock.name)):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.05)
    return True


def _holders(file: Path) -> set[int]:
    """Processes with an open file that has the lock (Linux; elsewhere none is known)."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if link.samefile(file) and "FLOCK" in (link.parents[1] / "fdinfo" / link.name).read_text():
                found.add(int(link.parts[2]))
    return found - {os.getpid()}


def _words(owner: dict[str, Any]) -> str:
    return "process {pid} on {host}, since {since}".format(**owner) if owner else "it has not said which"
