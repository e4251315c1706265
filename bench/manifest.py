"""What lies in a folder of weights: every file with its size and hash, and the run that made it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from bench.folder import InputError
from bench.record import read_json, write_json

MANIFEST_FILE: Final = "manifest.json"
FORMAT: Final = 1
BLOCK_BYTES: Final = 1 << 22


def file_hash(path: Path) -> str:
    """SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest, last of all files: a folder that has one is whole."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    files = {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in paths}
    write_json(folder / MANIFEST_FILE, {"format": FORMAT, "files": files, **facts})


def check_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest and hold every file to it; InputError names the first that is missing or damaged."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise InputError(
            f"{folder}: no {MANIFEST_FILE}; the weights were not written to the end, or are of an older suite"
        )
    try:
        manifest: dict[str, Any] = read_json(path)
        for name, facts in manifest["files"].items():
            if not (folder / name).is_file():
                raise InputError(f"{folder / name}: is missing; copy the whole folder, or run again with --force")
            if file_hash(folder / name) != facts["sha256"]:
                raise InputError(f"{folder / name}: is damaged (not the hash in {MANIFEST_FILE}); copy it again")
    except (KeyError, TypeError, AttributeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a manifest of this suite ({error!r})") from error
    return manifest
