"""How files get to a disk so that a power cut leaves the old one or the new one, and what is said last is there last.

A file is written beside its place, its bytes are forced to the disk, it is renamed into its place, and the folder that
now names it is forced as well (`man 2 fsync`). Standard library only, as `report` and the worker use it, too.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def sync(path: Path) -> None:
    """Force a file's bytes, or a folder's names, to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def sync_tree(folder: Path) -> None:
    """Force all that lies in a folder to the disk, and the folder's own name."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            if path.is_file() and not path.is_symlink():
                sync(path)
        sync(Path(place))
    sync(folder.parent)


def put(draft: Path, path: Path) -> None:
    """Let a file or folder take its place; its bytes are to be on the disk already."""
    draft.replace(path)
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    draft = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.chmod(0o644)
        put(draft, path)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):  # of an open file the system tells no name
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise
