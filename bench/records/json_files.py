"""JSON on a disk: there whole or not at all, and an object may carry a digest of itself, by which damage is found."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.records.files import write_text

SEAL: Final = "digest"  # key of an object's digest of all its other keys


def digest(value: Any) -> str:
    """Twelve hex digits of a JSON-able value, independent of key order."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The same object with a digest of itself, by which damage is found."""
    bare = {key: item for key, item in value.items() if key != SEAL}
    return {**bare, SEAL: digest(bare)}


def is_intact(value: Mapping[str, Any]) -> bool:
    """Whether a sealed object, as it was read, is what was written; True for one of before there were seals."""
    return SEAL not in value or sealed(value)[SEAL] == value[SEAL]


def write_json(path: Path, value: Any) -> None:
    """Write `value` as a file that is there whole or not at all (`bench.records.files`)."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read one JSON file; ValueError with the file and place when it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); delete it to have it made again") from error
