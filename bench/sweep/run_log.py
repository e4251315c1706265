"""What a run's process printed: kept for a person, bounded, and never parsed but for its last line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

LOG_FILE: Final = "log.txt"
LOG_MOST_BYTES: Final = 64 << 20
LOG_KEPT_BYTES: Final = 1 << 20
LOG_END_BYTES: Final = 1 << 16


def last_line(log: Path) -> str:
    """The last line with anything in it; of a long log only the end is read."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_END_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def limit_log(log: Path) -> None:
    """Keep the beginning of a log that has grown too long; what is written after that follows it."""
    if log.is_file() and log.stat().st_size > LOG_MOST_BYTES:
        cut = log.stat().st_size - LOG_KEPT_BYTES
        os.truncate(log, LOG_KEPT_BYTES)  # it is open for appending, so the run writes on behind this
        with log.open("ab") as file:
            file.write(f"\n[{cut} bytes were left out here: the log had more than {LOG_MOST_BYTES}]\n".encode())
