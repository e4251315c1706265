"""How checkpoints are read: from this disk, and never with code that comes with them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

READ = (".json", ".safetensors")  # kinds of files that a model is read from

# Of every `from_pretrained`: no download, and no foreign code, whatever `auto_map` says.
FROM_DISK: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


def first_line(error: Exception) -> str:
    """First line of an error's message, or its type where it says nothing."""
    if "trust_remote_code" in str(error):
        return "it wants code of its own to be run, which never happens; take files without auto_map"
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def check_files(folder: Path) -> None:
    """Hold what is read of a model to the manifest and the index that lie with it, where there are such.

    ValueError names a file that is damaged, or one that an index looks for outside the folder.
    """
    for index in folder.glob("*.index.json"):
        names = _object(index, "weight_map").values()
        if outside := [name for name in names if not isinstance(name, str) or Path(name).name != name]:
            raise ValueError(f"{index}: names {str(outside[0])!r}, which is no file of this folder; copy it again")
    manifest = folder / "manifest.json"
    for name, facts in (_object(manifest, "files") if manifest.is_file() else {}).items():
        file = folder / name
        if Path(name).name != name or file.suffix not in READ or not file.is_file():
            continue  # what is not there and needed, loading misses by name
        if not isinstance(facts, dict) or facts.get("sha256") != _hash(file):
            raise ValueError(f"{file}: is damaged (not the hash in {manifest.name}); copy it again")


def _object(file: Path, key: str) -> dict[str, Any]:
    """The object under a key of a JSON file; ValueError where there is none."""
    try:
        found: Any = json.loads(file.read_text(encoding="utf-8")).get(key)
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{file}: not readable: {first_line(error)}; copy it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: has no {key}; copy it again")  # noqa: TRY004 (a file's content)
    return found


def _hash(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as content:
        while block := content.read(1 << 22):
            found.update(block)
    return found.hexdigest()
