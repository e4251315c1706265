"""What lies in a saved folder: each file with its size and hash, and facts about where it came from.

Written last of all files, so that a folder that has one is whole; whoever reads the folder holds its files to it.
"""

from __future__ import annotations

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from strategies.errors import PlanError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

MANIFEST_FILE: Final = "manifest.json"
FORMAT: Final = 1
BLOCK_BYTES: Final = 1 << 22
PACKAGES: Final = ("torch", "transformers", "peft", "bitsandbytes", "torchao")


def file_hash(path: Path) -> str:
    """Give the SHA-256 of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def installed_versions() -> dict[str, str]:
    """Give the versions of the packages that a saved model depends on, those that are there."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def save_manifest(folder: Path, paths: Iterable[Path], facts: Mapping[str, Any]) -> None:
    """Write the manifest of the files `paths` below `folder`."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_hash(path)} for path in paths
    }
    _write(folder, {"format": FORMAT, "files": files, **facts})


def add_facts(folder: Path, facts: Mapping[str, Any]) -> None:
    """Say more in the manifest of a folder; its files are not read again."""
    _write(folder, {**_read(folder), **facts})


def check(folder: Path) -> dict[str, Any]:
    """Hold every file to the manifest and give it; `PlanError` names the first that is missing or damaged."""
    manifest = _read(folder)
    path = folder / MANIFEST_FILE
    try:
        hashes = {name: facts["sha256"] for name, facts in manifest["files"].items()}
    except (KeyError, TypeError, AttributeError) as problem:
        raise PlanError(f"{path}: not a manifest of this suite ({problem!r})") from None
    for name, expected in hashes.items():
        if not (folder / name).is_file():
            raise PlanError(f"{folder / name}: is missing; copy the whole folder again")
        if file_hash(folder / name) != expected:
            raise PlanError(f"{folder / name}: is damaged (not the hash in {MANIFEST_FILE}); copy it again")
    return manifest


def _read(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_FILE
    try:
        manifest: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise PlanError(f"{path}: not readable as JSON ({problem}); copy it again") from None
    if not isinstance(manifest, dict):
        raise PlanError(f"{path}: not a manifest of this suite")
    return manifest


def _write(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Put the file in place in one move."""
    part = folder / f".{MANIFEST_FILE}"
    part.write_text(json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n", encoding="utf-8")
    part.replace(folder / MANIFEST_FILE)
