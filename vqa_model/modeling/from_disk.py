"""How checkpoints are read: from this disk, and never with code that comes with them."""

from __future__ import annotations

from typing import Any

# Of every `from_pretrained`: no download, and no foreign code, whatever `auto_map` says.
FROM_DISK: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def first_line(error: Exception) -> str:
    """First line of an error's message, or its type where it says nothing."""
    if "trust_remote_code" in str(error):
        return "it wants code of its own to be run, which never happens; take files without auto_map"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
