"""The owner's end of `bench.processes.server`: asks for forks, and knows each as `subprocess.Popen` would."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

from bench.processes.environment import FORK_SAFE, child_environment, differences

StartMethod = Literal["fork", "fresh"]


class ServerEndedError(Exception):
    """The server that was asked for a fork is gone."""


class UnsafeForkError(Exception):
    """The server must not fork: something runs beside it, or it has touched a GPU."""


class Child(Protocol):
    """A child process, as `subprocess.Popen` has it."""

    pid: int
    returncode: int | None
    start_method: ClassVar[StartMethod]
    lost: bool  # its server died, and it with it: nobody knows how it would have ended

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit status; `subprocess.TimeoutExpired` after `timeout` seconds."""


def interpreter() -> list[str]:
    """The words that start an interpreter like this one: its path and its flags."""
    return [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]  # noqa: SLF001


class ForkedProcess:
    """A child that a server forked; its end is read from a pipe."""

    start_method: ClassVar[StartMethod] = "fork"

    def __init__(self, pid: int, pipe: int) -> None:
        self.pid, self._pipe = pid, pipe
        self.returncode: int | None = None
        self.lost = False

    def poll(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.wait(0)
        return None

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit status; `subprocess.TimeoutExpired` after `timeout` seconds."""
        if self.returncode is None:
            waiting = select.poll()
            waiting.register(self._pipe, select.POLLIN)
            if not waiting.poll(None if timeout is None else 1000 * timeout):
                raise subprocess.TimeoutExpired(f"child {self.pid}", timeout or 0.0)
            told = _read_line(self._pipe)
            self.lost = told is None
            self.returncode = -signal.SIGKILL if told is None else told["exit"]
            os.close(self._pipe)
        return self.returncode


class ForkServer:
    """The owner's end of `bench.processes.server`: started at once, waited for at the first child."""

    def __init__(self, modules: Sequence[str]) -> None:
        self.environment = child_environment(FORK_SAFE)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the server
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._connection, self._ready = ours, False
        with theirs:
            self._process = subprocess.Popen(
                [*interpreter(), "-m", "bench.processes.server", str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=self._errors, start_new_session=True,
                env=self.environment, pass_fds=[theirs.fileno()],
            )  # fmt: skip
        ours.send(json.dumps({"modules": list(modules), "owner": os.getpid()}).encode())

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def is_alive(self) -> bool:
        """Whether it runs still."""
        return self._process.poll() is None

    def wait_until_ready(self) -> None:
        """Wait until it has imported everything; comes back at once if it ended instead."""
        if not self._ready:
            self._ready = bool(self._connection.recv(16))

    def fork(
        self, module: str, arguments: Sequence[str], environment: Mapping[str, str], files: Sequence[int]
    ) -> ForkedProcess:
        """Fork a child. files: standard output, standard errors, and others to keep open.

        ServerEndedError where the server is gone, UnsafeForkError where it must not fork; each says why.
        """
        request = {"module": module, "arguments": list(arguments), "folder": str(Path.cwd()), "server": self.pid}
        message = json.dumps(request | differences(self.environment, environment)).encode()
        ours, theirs = os.pipe()
        told = None
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it is gone
                self.wait_until_ready()
                socket.send_fds(self._connection, [message], [theirs, *files])
            os.close(theirs)
            theirs = -1
            told = _read_line(ours)
        finally:
            for end in (theirs, -1 if told and "pid" in told else ours):
                if end >= 0:
                    os.close(end)
        if told is None:
            raise ServerEndedError(f"the server of forks ended: {self._last_words()}")
        if "unsafe" in told:
            raise UnsafeForkError(told["unsafe"])
        return ForkedProcess(told["pid"], ours)

    def _last_words(self) -> str:
        self._process.terminate()
        self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = [line.strip() for line in lines if line.strip()]
        return last[-1][:200] if last else f"exit status {self._process.returncode}"

    def close(self) -> None:
        """End it, and all its children that are left; in the middle of its imports, too."""
        self._connection.close()
        self._process.terminate()
        self._process.wait()
        self._errors.close()


def _read_line(pipe: int) -> dict[str, Any] | None:
    """One line of JSON from a pipe; None at its end. Lines are far shorter than what a pipe writes at once."""
    line = b""
    while not line.endswith(b"\n"):
        byte = os.read(pipe, 1)
        if not byte:
            return None
        line += byte
    told: dict[str, Any] = json.loads(line)
    return told
