"""Tells whole files from damaged ones, and puts whole ones in place under their final names.

A file gets its final name in one step, after it was checked. What lies there already is checked cheaply (it has an end)
or fully (it can be decoded). Of an archive only members asked for by name are taken, and they go where the caller
says: names inside an archive never become paths.
"""

from __future__ import annotations

import os
import shutil
import zipfile
import zlib
from typing import TYPE_CHECKING

from vqa_model.data.pictures import read_picture
from vqa_model.downloading.fetcher import DamagedError, FetchError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

PARTIAL_FOLDER = ".parts"  # in the folder of the final name, which may be a link to another disk
_TAIL = 4096  # some pictures carry padding after their end
_BAD_ARCHIVE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)  # what zipfile raises


def partial_path(target: Path, suffix: str = ".part") -> Path:
    """Where a file grows until it gets its final name."""
    return target.parent / PARTIAL_FOLDER / f"{target.name}{suffix}"


def looks_complete(path: Path, suffix: str = "") -> bool:
    """Whether a picture or JSON file (by its suffix, or the one given) is there and ends as such a file does."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            tail = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return b"\xff\xd9" in tail if (suffix or path.suffix) == ".jpg" else tail.rstrip().endswith((b"}", b"]"))


def decodes(path: Path) -> bool:
    """Whether a picture is there and can be decoded to its last row."""
    try:
        read_picture(path)
    except ValueError:
        return False
    return looks_complete(path)


def accept_picture(part: Path, target: Path) -> None:
    """Give a JPEG that decodes its final name; DamagedError says what else it is."""
    with part.open("rb") as file:
        start = file.read(16)
    if not start.startswith(b"\xff\xd8"):
        raise DamagedError(f"not a JPEG: it starts with {start!r}")
    try:
        read_picture(part)
    except ValueError as error:
        raise DamagedError("a JPEG that cannot be decoded") from error
    if not looks_complete(part, target.suffix):
        raise DamagedError("a JPEG without an end")
    part.replace(target)


def unpack(archive: Path, targets: Mapping[str, Path]) -> None:
    """Put members of an archive in their places and remove it.

    DamagedError when the archive or a member of it fails its checksum; FetchError, after all others are in place, when
    members are not in it: another attempt would bring the same.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            missing = sorted(targets.keys() - set(content.namelist()))
            for member in sorted(targets.keys() - set(missing)):
                draft = partial_path(targets[member], ".draft")
                with content.open(member) as source, draft.open("wb") as out:
                    shutil.copyfileobj(source, out, 1 << 20)
                draft.replace(targets[member])
    except _BAD_ARCHIVE as error:
        raise DamagedError(f"a damaged archive ({error})") from error
    archive.unlink()
    if missing:
        raise FetchError(f"{len(missing)} files are not in the archive, the first is {missing[0]}")
