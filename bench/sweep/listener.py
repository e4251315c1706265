"""Listens to a run while it lasts: folds its events, bounds its log, and says when it cannot go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bench.records.events import EVENTS_FILE, EventReader, NoEventError, RunResult
from bench.sweep.progress import duration
from bench.sweep.run_log import LOG_FILE, limit_log


class Listener:
    """Called all the while; gives False, and the result its status, once the run in `folder` cannot go on.

    That is after a line of its log that is no event, or after a silence of more than `max_silence` seconds.
    """

    def __init__(
        self, folder: Path, result: RunResult, watch: Callable[[Mapping[str, Any]], None], max_silence: float
    ) -> None:
        self._folder, self._result, self._watch, self._max_silence = folder, result, watch, max_silence
        self._read, self._heard, self._can_go_on = EventReader(folder / EVENTS_FILE), time.monotonic(), True

    def __call__(self) -> bool:
        """Take in what is new."""
        limit_log(self._folder / LOG_FILE)
        try:
            for event in self._read():
                self._heard = time.monotonic()
                self._result.add(event)
                self._watch(event)
        except NoEventError as error:
            self._give_up("failed", str(error))
        if self._can_go_on and time.monotonic() - self._heard > self._max_silence:
            where = self._result.section or "its start"
            told = f"told nothing for {duration(self._max_silence)} in {where}, so it hangs or needs --max-silence"
            ended = self._result.status  # it said how it ended, and hangs in leaving
            self._give_up(*((ended, self._result.reason) if ended else ("timeout", told)))
        return self._can_go_on

    def _give_up(self, status: str, reason: str) -> None:
        self._result.status, self._result.reason, self._can_go_on = status, reason, False
