"""The one channel from a run to its record: a log of JSON lines, folded into a row.

The worker appends events while it runs; whoever started it folds them when the process has ended, however it
ended. So what was measured before a crash, a kill or a timeout is kept by the same code that records success.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from bench.records import disturbance

EVENTS_FILE = "events.jsonl"
ALIVE_EVERY_SECONDS = 30.0
SUMMED = {"seconds", "energy_joules", *disturbance.SUMMED}  # of a section entered again; of others the most counts


class EventWriter:
    """Appends events to a run's log; each line reaches the disk's cache at once."""

    def __init__(self, path: Path) -> None:
        self._file: TextIO = path.open("a", encoding="utf-8", buffering=1)
        self._told = time.monotonic()

    def __call__(self, event: str, **values: Any) -> None:
        """Append one event."""
        self._told = time.monotonic()
        self._file.write(json.dumps({"event": event, **values}, allow_nan=False) + "\n")

    def alive(self) -> None:
        """Say that the run goes on, where it has told nothing for a while."""
        if time.monotonic() - self._told > ALIVE_EVERY_SECONDS:
            self("alive")

    def close(self) -> None:
        """Close the log."""
        self._file.close()


class NoEventError(ValueError):
    """A line of a log that is no event of this version; the message names file and line."""


class EventReader:
    """Reads the events that were added since the last call; a half-written last line waits."""

    def __init__(self, path: Path) -> None:
        self._path, self._position, self._lines = path, 0, 0

    def __call__(self) -> Iterator[dict[str, Any]]:
        """Events since the last call. NoEventError for a line that is none."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self._position += len(line)
                self._lines += 1
                yield self._parse(line)

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            event = json.loads(line)
            RunResult().add(event)  # for nothing but its errors
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise NoEventError(f"{self._path}: line {self._lines} is no event of this version") from error
        return dict(event)


@dataclass
class RunResult:
    """What a run's events say: columns of its row, its tables, and how it ended."""

    row: dict[str, Any] = field(default_factory=dict)
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    history: list[list[Any]] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    section: str = ""
    status: str = ""
    reason: str = ""
    ended_at: float | None = None  # seconds since the epoch

    def add(self, event: Mapping[str, Any]) -> None:
        """Take in one event; an unknown kind is an error, so that no event is dropped silently."""
        values = {key: value for key, value in event.items() if key != "event"}
        getattr(self, f"_on_{event['event']}")(**values)

    def _on_section(self, name: str) -> None:
        self.section = name

    def _on_section_end(self, name: str, **figures: float | None) -> None:
        section = self.sections.setdefault(name, {})
        for key, value in figures.items():
            if value is not None:
                previous = section.get(key, 0)
                section[key] = previous + value if key in SUMMED else max(value, previous)

    def _on_step(self, **_: Any) -> None:
        """For the live display only."""

    def _on_alive(self) -> None:
        """Says that the run does not hang."""

    def _on_measured(self, **values: Any) -> None:
        self.row.update(values)

    def _on_history(self, step: int, train_seconds: float, split: str, metric: str, value: float) -> None:
        self.history.append([step, train_seconds, split, metric, value])

    def _on_metrics(self, split: str, values: dict[str, float]) -> None:
        self.metrics.setdefault(split, {}).update(values)

    def _on_environment(self, **values: Any) -> None:
        self.environment.update(values)

    def _on_end(self, status: str, reason: str = "", at: float | None = None) -> None:
        self.status, self.reason, self.ended_at = status, reason, at


def aggregate_events(events: Iterable[Mapping[str, Any]]) -> RunResult:
    """Fold a run's events; the order is the order they were written in."""
    result = RunResult()
    for event in events:
        result.add(event)
    return result
