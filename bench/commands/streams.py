"""What a sweep says may have no reader: `| head -1`, a closed terminal. The sweep goes on and says no more."""

from __future__ import annotations

import errno
import os
import signal
import sys
from types import FrameType
from typing import Any, Final, NoReturn, TextIO

READER_GONE: Final = (errno.EPIPE, errno.EIO)
ENDING: Final = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")  # Ctrl-C, a scheduler, a closed terminal, Ctrl-backslash


class Unread:
    """A stream that falls silent, for this process and its children, when nobody reads it any more."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write, or drop what nobody would read."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._fall_silent(error)
            return len(text)

    def flush(self) -> None:
        """Flush, or drop what nobody would read."""
        try:
            self._stream.flush()
        except OSError as error:
            self._fall_silent(error)

    def _fall_silent(self, error: OSError) -> None:
        if error.errno not in READER_GONE:
            raise error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)


def outlive_readers() -> None:
    """Let standard output and errors lose their readers without ending the command."""
    for name in ("stdout", "stderr"):
        if not isinstance(getattr(sys, name), Unread):
            setattr(sys, name, Unread(getattr(sys, name)))


def end_once() -> None:
    """Turn the first signal that asks for the end into KeyboardInterrupt; those after it do not disturb the ending.

    What was ignored before, as `nohup` ignores SIGHUP, stays ignored.
    """
    numbers = [getattr(signal, name) for name in ENDING]
    heard = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]

    def end(_number: int, _frame: FrameType | None) -> NoReturn:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in heard:
        signal.signal(number, end)
