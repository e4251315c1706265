"""--time-limit: when a sweep stops itself, and what it says then.

Counted from the start of the command. The end is kept free for CSVs, table and figures: 30 seconds, or a twentieth of
a limit under ten minutes.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

from bench.records.checkpoint_folder import read_progress
from bench.records.spec import RunSpec
from bench.sweep.progress import duration
from strategies import compose, not_resumable

RESERVED_SECONDS: Final = 30.0
RESERVED_SHARE: Final = 0.05


class TimeLimitReachedError(Exception):
    """The sweep stops here; its TimeLimit says how far it came."""


class TimeLimit:
    """A wall-clock limit of `seconds` from now on; `message` is one line once it was reached."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.message = seconds, ""
        self.reserved_seconds = min(RESERVED_SECONDS, RESERVED_SHARE * seconds)
        self.deadline = time.time() + seconds - self.reserved_seconds

    def check(self, spec: RunSpec, todo: Sequence[RunSpec], number: int, folder: Path) -> None:
        """Stop before a run for which nothing useful is left."""
        if time.time() + self.reserved_seconds >= self.deadline:
            self.stop(spec, todo, number, folder)

    def stop(self, spec: RunSpec, todo: Sequence[RunSpec], number: int, folder: Path) -> NoReturn:
        """Say how far the sweep came, and stop it. number: of the run (from 1) that did not finish."""
        progress = read_progress(folder)
        where = (
            f"paused at step {progress['step']} of {progress['total']}" if progress else "to start from its beginning"
        )
        if not progress and (names := not_resumable(compose(spec.plan))):
            where += f", as {names[0]} cannot be resumed exactly,"
        self.message = (
            f"time limit of {duration(self.seconds)}: {number - 1} of {len(todo)} runs done, {spec.strategy} "
            f"(seed {spec.seed}) {where}, {len(todo) - number} not started; the same command goes on from there"
        )
        raise TimeLimitReachedError
