"""Where a sweep's outputs go, and text files that are there whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from report.errors import ReportError


def write_atomic(path: Path, text: str) -> Path:
    """Write a text file in one move; ReportError where that cannot be done."""
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(draft).chmod(0o644)
        Path(draft).replace(path)
    except OSError as error:
        raise ReportError(f"{path}: cannot be written ({error.strerror}); copy the sweep elsewhere") from error
    return path


def outputs_of(folder: Path, out: Path | None) -> Path:
    """The folder for a sweep's outputs: its own, or one of its name in `out`, then made. ReportError if not."""
    if out is None:
        return folder
    place = out / folder.resolve().name
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReportError(f"--out {out}: {place} cannot be made ({error.strerror}); name another folder") from error
    return place
