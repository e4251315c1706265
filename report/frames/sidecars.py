"""JSON files beside a sweep's CSVs. All are optional: one that cannot be used is noted and counts as not there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeVar

from bench.records.json_files import read_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SAFE_NAME: Final = re.compile(r"[\w-][\w.-]*")  # what may be part of a path: a name, and no way to elsewhere

Parsed = TypeVar("Parsed")


class SidecarFiles:
    """The side files of one folder; `notes` collects what could not be read."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.notes = folder, list[str]()

    def json(self, name: str, kind: type) -> Any:
        """A JSON file of the given kind (dict or list), or an empty one."""
        path = self.folder / name
        if not path.is_file():
            return kind()
        try:
            value = read_json(path)
        except (ValueError, OSError) as error:
            self.notes.append(str(error))
            return kind()
        if not isinstance(value, kind):
            self.notes.append(f"{path}: holds no {'table' if kind is dict else 'list'}; is it a sweep's?")
            return kind()
        return value

    def parse(self, name: str, read: Callable[[], Parsed], default: Parsed) -> Parsed:
        """What `read` makes of a file's values; one of another form than a sweep writes is noted and left out."""
        try:
            return read()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            self.notes.append(f"{self.folder / name}: not of the form that a sweep writes ({error}); left out")
            return default
