"""Records of runs as they come from a disk: whole and of their folder, or with the reason why they are not used.

A results folder travels: it is copied while a sweep writes, cut off by a full disk, or comes from somebody else. What
is read here has the shape that everything after it relies on, and an id that is no path.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench.records.json_files import SEAL, is_intact, read_json
from bench.records.record import (
    KINDS,
    PREDICTIONS,
    RUN_COLUMNS,
    SCHEMA_VERSION,
    SECTION_COLUMNS,
    STATUSES,
    TEXT_COLUMNS,
)
from strategies.saving.manifest import file_hash

RECORD_FILE: Final = "record.json"
DAMAGED: Final = "damaged"  # of a results folder: what was set aside
RUN_ID: Final = re.compile(r"[0-9a-f]{12}")
PARTS: Final = {
    "spec": dict,
    "row": dict,
    "sections": dict,
    "history": list,
    "metrics": dict,
    "memory": dict,
    "files": dict,
}
BESIDE: Final = ("schema", "run_id", "environment", SEAL)
ALWAYS: Final = ("kind", "status", "strategy", "seed", "created_at")  # columns that every record has

Record = Mapping[str, Any]


class NewerRecordError(ValueError):
    """A record of a later version of the suite: neither damaged nor understood."""


def run_folders(out: Path) -> Iterator[Path]:
    """Folders of runs that have a record, by id."""
    yield from sorted(path.parent for path in (out / "runs").glob(f"*/{RECORD_FILE}"))


def read_run(folder: Path) -> Record:
    """The record in a run's folder. ValueError says what is wrong with it, NewerRecordError that it is not ours."""
    path = folder / RECORD_FILE
    if folder.is_symlink() or path.is_symlink():
        raise ValueError(f"{path}: reached by a link; a run's folder is a folder in its results folder")
    if not path.is_file():
        raise ValueError(f"{path}: no file")
    record = read_json(path)
    if fault := _fault(record, folder.name):
        raise ValueError(f"{path}: no whole record ({fault})")
    for name, expected in hashes(folder).items():
        if record.get("files", {}).get(name, expected) != expected:
            raise ValueError(f"{folder / name}: not what was written")
    return dict(record)


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the files of a run that its record stands for, those that are there: a clone has none."""
    return {name: file_hash(folder / name) for name in (PREDICTIONS,) if (folder / name).is_file()}


def read_runs(out: Path) -> tuple[list[Record], list[tuple[Path, str]]]:
    """Every record of a results folder that is whole, and the folders of those that are not, each with the reason."""
    records, damaged = [], []
    for folder in run_folders(out):
        try:
            records.append(read_run(folder))
        except NewerRecordError:
            raise
        except (ValueError, OSError) as error:
            damaged.append((folder, str(error)))
    return records, damaged


def set_damaged_aside(out: Path) -> list[str]:
    """Move folders of runs with damaged records out of the way, so that they are run again; a line for each."""
    lines = []
    for folder, reason in read_runs(out)[1]:
        place = _free(out / DAMAGED / folder.name)
        place.parent.mkdir(exist_ok=True)
        folder.rename(place)
        lines.append(f"{reason}; set aside as {place}, its run is not finished")
    return lines


def _free(place: Path) -> Path:
    """The place itself, or the same with the first number that is not taken."""
    number = 1
    found = place
    while found.exists() or found.is_symlink():
        number += 1
        found = place.with_name(f"{place.name}-{number}")
    return found


def _fault(record: Any, name: str) -> str:
    """What is wrong with a record, from a folder of this name; empty if nothing is."""
    if not isinstance(record, dict):
        return "no object"
    version = record.get("schema")
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise NewerRecordError(
            f"runs/{name}/{RECORD_FILE}: written by a newer version of the suite (schema {version}, this one knows "
            f"{SCHEMA_VERSION}); update the suite, or name another folder"
        )
    if version != SCHEMA_VERSION or isinstance(version, bool):
        return f"schema {version!r}, not {SCHEMA_VERSION}"
    if record.get("run_id") != name or not RUN_ID.fullmatch(name):
        return "its id is not its folder's name, or not 12 hex digits"
    if not is_intact(record) or record.keys() - {*PARTS, *BESIDE}:
        return "it is not what was written"
    parts = {"files": {}, **record}
    if other := [part for part, kind in PARTS.items() if not isinstance(parts.get(part), kind)]:
        return f"{other[0]} is missing, or of another kind"
    return _row_fault(record["row"], name) or _tables_fault(record)


def _row_fault(row: Mapping[str, Any], run_id: str) -> str:
    if missing := [column for column in ALWAYS if column not in row]:
        return f"its row has no {missing[0]}"
    if row.get("run_id", run_id) != run_id:
        return "its row has another id"
    for column in RUN_COLUMNS:
        value = row.get(column)
        if not (value is None and column not in ALWAYS) and not _fits(column, value):
            return f"its {column} is {repr(value)[:40]}"
    return "" if row["kind"] in KINDS and row["status"] in STATUSES else "a kind or status that there is not"


def _fits(column: str, value: Any) -> bool:
    if column not in TEXT_COLUMNS:
        return _is_number(value)
    return isinstance(value, bool if column == "git_dirty" else str)


def _tables_fault(record: Record) -> str:
    for part in ("sections", "metrics", "memory"):
        tables = record[part].values() if part != "memory" else [record[part]]
        if not all(isinstance(table, dict) and all(map(_is_number, table.values())) for table in tables):
            return f"{part} holds what is no number"
    if any(table.keys() - SECTION_COLUMNS.keys() for table in record["sections"].values()):
        return "sections holds a figure that there is not"
    for point in record["history"]:
        if not isinstance(point, list) or list(map(_is_number, point)) != [True, True, False, False, True]:
            return "history holds what is no point"
    return ""


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and -sys.float_info.max <= value <= sys.float_info.max
    )
