"""Temporary folders that are gone when their process is: what a killed one left, the next sweep removes.

A folder is in use while a file in it is locked; locks end with their process, whatever ended it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

PREFIX: Final = "tunematrix-"
IN_USE: Final = ".in-use"


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder for temporary files; it is removed in the end."""
    import fcntl  # not on Windows, where the command line has a word for it

    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        with (folder / f"{IN_USE}.new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            Path(lock.name).rename(folder / IN_USE)  # under this name it is locked from its first moment on
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_abandoned() -> None:
    """Remove this user's scratch folders that no process uses any more."""
    import fcntl

    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # in use, or not ours to judge
            if folder.is_symlink() or folder.stat().st_uid != os.getuid():
                continue
            with (folder / IN_USE).open() as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
