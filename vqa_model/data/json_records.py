"""Reads the records of one long list in a JSON file, one at a time.

The annotations of VQA v2 are 374 MB in one line: parsed whole they are 2 GB of dictionaries, which nothing
here wants at once. Python's own parser reads a single value from any place of a text, so the file is walked
through value by value, and a record is gone when the next is read. Damage is told with line and column.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SPACE = re.compile(r"[ \t\n\r]*")


class _Reader:
    """A place in a JSON text, moved on by what is read."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Give the next character that is no space; empty at the end."""
        found = _SPACE.match(self.text, self.position)
        assert found
        self.position = found.end()
        return self.text[self.position : self.position + 1]

    def take(self, marks: str) -> str:
        """Read one of the marks."""
        mark = self.peek()
        if not mark or mark not in marks:
            raise json.JSONDecodeError(f"Expecting {' or '.join(map(repr, marks))}", self.text, self.position)
        self.position += 1
        return mark

    def value(self) -> Any:
        """Read a whole value."""
        self.peek()
        found, self.position = self._decode(self.text, self.position)
        return found

    def items(self, opening: str, closing: str) -> Iterator[None]:
        """Stop before each item of a list or object; whoever iterates reads it."""
        self.take(opening)
        if self.peek() == closing:
            self.take(closing)
            return
        yield
        while self.take(f",{closing}") != closing:
            yield


def stream_records(file: Path, key: str) -> Iterator[Any]:
    """Yield what stands in the list under `key` of the object in a file; nothing where there is no such list.

    OSError and UnicodeDecodeError as reading gives them; json.JSONDecodeError at the first damage anywhere.
    """
    reader = _Reader(file.read_text(encoding="utf-8"))
    if reader.peek() != "{":
        reader.value()
        return
    for _ in reader.items("{", "}"):
        name = reader.value()
        reader.take(":")
        if name == key and reader.peek() == "[":
            for _ in reader.items("[", "]"):
                yield reader.value()
        else:
            reader.value()
    if reader.peek():
        raise json.JSONDecodeError("Extra data", reader.text, reader.position)
