"""The manifest of a folder of weights that a run or an export left: `strategies.saving.manifest`, in bench's words."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.records.results_folder import InputError
from strategies.saving.manifest import MANIFEST_FILE, check, save_manifest


def write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """Write the manifest of all that lies in a folder, last of all files: a folder that has one is whole."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST_FILE)
    save_manifest(folder, paths, facts)


def check_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest and hold every file to it; InputError names the first that is missing or damaged."""
    if not (folder / MANIFEST_FILE).is_file():
        raise InputError(
            f"{folder}: no {MANIFEST_FILE}; the weights were not written to the end, or are of an older suite"
        )
    try:
        return check(folder)
    except ValueError as error:
        raise InputError(str(error)) from error
