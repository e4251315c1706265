"""What a person sees while files arrive: a bar on a terminal, a plain line now and then anywhere else.

Threads report bytes; only the main thread draws. Time left goes by files where there are many, by bytes where there
are few large ones.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import deque

_GIGA = 1e9
_RECENT_SECONDS = 10.0  # speed is shown over this long
_DRAW_SECONDS = 0.25
PLAIN_EVERY_SECONDS = 15.0


def size_text(num_bytes: float) -> str:
    """Bytes as people read them: 45 MB, 3.4 GB."""
    return f"{num_bytes / _GIGA:.1f} GB" if num_bytes >= _GIGA else f"{num_bytes / 1e6:.0f} MB"


def duration_text(seconds: float) -> str:
    """Seconds as people read them: 45 s, 3 min 05 s, 2 h 07 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class FetchProgress:
    """Counts files and bytes; `expected_bytes` where only bytes tell how far a few large files are."""

    def __init__(self, what: str, total: int, expected_bytes: int = 0) -> None:
        self.what, self.total, self.done = what, total, 0
        self.num_bytes, self.num_retries, self.last_reason, self._printed_reason = 0, 0, "", ""
        self._expected_bytes, self._lock = expected_bytes, threading.Lock()
        self._started = self._drawn = time.monotonic()
        self._recent = deque([(self._started, 0)])
        self._bar = _Bar(what) if sys.stdout.isatty() else None

    def received(self, num_bytes: int) -> None:
        """Bytes arrived (from any thread)."""
        with self._lock:
            self.num_bytes += num_bytes

    def retried(self, reason: str) -> None:
        """An attempt failed and will be repeated (from any thread)."""
        with self._lock:
            self.num_retries += 1
            self.last_reason = reason

    @property
    def share(self) -> float:
        """Share that is done, 0..1."""
        if self._expected_bytes and self.done < self.total:
            return min(1.0, self.num_bytes / self._expected_bytes)
        return self.done / self.total

    def text(self, now: float) -> str:
        """Files, bytes, speed, time left, and how often something went wrong."""
        first, before = self._recent[0]
        speed = (self.num_bytes - before) / max(now - first, 1e-3) / 1e6
        line = f"{self.done:,}/{self.total:,} files  {size_text(self.num_bytes)}  {speed:.1f} MB/s"
        if self.share < 1:
            line += f"  {duration_text((now - self._started) * (1 / self.share - 1))} left" if self.share else ""
        elif self.done < self.total:
            line += "  unpacking"
        return line + (f"  {self.num_retries} tried again" if self.num_retries else "")

    def tick(self, *, files: int = 0) -> None:
        """Note files that ended, and draw when it is time (main thread only)."""
        self.done += files
        now = time.monotonic()
        if now - self._drawn < (_DRAW_SECONDS if self._bar else PLAIN_EVERY_SECONDS):
            return
        self._draw(now)
        self._recent.append((now, self.num_bytes))
        while now - self._recent[0][0] > _RECENT_SECONDS and len(self._recent) > 1:
            self._recent.popleft()

    def _draw(self, now: float) -> None:
        self._drawn = now
        if self.last_reason != self._printed_reason:
            self._printed_reason = self.last_reason
            self._say(f"trying again: {self._printed_reason}")
        if self._bar:
            self._bar.draw(self.share, self.text(now))
        else:
            self._say(self.text(now))

    def _say(self, line: str) -> None:
        if self._bar:
            self._bar.say(f"{self.what}: {line}")
        else:
            print(f"{self.what}: {line}", flush=True)

    def close(self) -> None:
        """Leave one line that says what came and how fast."""
        if self._bar:
            self._bar.close()
        seconds = time.monotonic() - self._started
        speed = self.num_bytes / 1e6 / max(seconds, 1e-3)
        retries = f", {self.num_retries} tried again" if self.num_retries else ""
        received = f"{self.done:,}/{self.total:,} files, {size_text(self.num_bytes)} in {duration_text(seconds)}"
        print(f"{self.what}: {received}, {speed:.1f} MB/s{retries}", flush=True)


class _Bar:
    """One line of rich's progress; gone when closed."""

    def __init__(self, what: str) -> None:
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        info = TextColumn("{task.fields[info]}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis"))
        self._progress = Progress(TextColumn("{task.description}"), BarColumn(20), info, transient=True)
        self._task = self._progress.add_task(what, total=1.0, info="starting")
        self._progress.start()

    def draw(self, share: float, info: str) -> None:
        self._progress.update(self._task, completed=share, info=info)

    def say(self, line: str) -> None:
        self._progress.console.print(line, highlight=False, markup=False)

    def close(self) -> None:
        self._progress.stop()
