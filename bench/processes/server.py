"""A process that has imported what programs need and runs each as a fork: `python -m bench.processes.server SOCKET`.

SOCKET is the number of an inherited Unix socket. A request is one message of JSON with open files beside it
(SCM_RIGHTS): a pipe that tells the child's id and exit status, its standard output and errors, and files to keep open.
The server ends when the other end of the socket is closed, and takes all children with it.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

from bench.processes.child import become
from bench.processes.lifetime import end_with_parent
from bench.processes.preload import preload, unsafe

MESSAGE_BYTES: Final = 1 << 20
MOST_FILES: Final = 64
READY: Final = b"ready"


class Server:
    """Forks children on request and tells how they end."""

    def __init__(self, connection: socket.socket, path: Sequence[str]) -> None:
        """connection: to the owner. path: the import path before anything was imported."""
        self._connection, self._selector = connection, selectors.DefaultSelector()
        self._reports: dict[int, int] = {}  # a child's process id -> the pipe to tell its end
        self._wake, self._woken = os.pipe()
        for end in (self._wake, self._woken):
            os.set_blocking(end, False)
        own = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        self._added_path = [entry for entry in sys.path if entry not in path]
        self._library_path = [entry for entry in path[1:] if entry not in own]

    def serve(self) -> None:
        """Answer requests until the owner is gone."""
        signal.set_wakeup_fd(self._woken)
        for number in (signal.SIGCHLD, signal.SIGTERM):  # SIGTERM: the owner is gone; both only wake the loop
            signal.signal(number, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key pressed is for the owner, who tells the children
        self._selector.register(self._connection, selectors.EVENT_READ)
        self._selector.register(self._wake, selectors.EVENT_READ)
        while True:
            files = {key.fileobj for key, _ in self._selector.select()}
            if self._wake in files:
                if signal.SIGTERM in os.read(self._wake, MESSAGE_BYTES):
                    return
                self._tell_ended()
            if self._connection in files and not self._answer():
                return

    def end_children(self) -> None:
        """Kill all that is left, with what it has started."""
        for child in self._reports:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child, signal.SIGKILL)

    def _tell_ended(self) -> None:
        while True:
            try:
                child, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if child == 0:
                return
            if pipe := self._reports.pop(child, None):
                tell(pipe, exit=os.waitstatus_to_exitcode(status))
                os.close(pipe)

    def _answer(self) -> bool:
        """Fork for one request; False when there are no more."""
        message, files = receive(self._connection)
        if not message:
            return False
        request = json.loads(message)
        pipe, output, errors, *kept = files
        reason, child = unsafe(), None
        if not reason:
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # until the child no longer has our handlers
            try:
                child = os.fork()
            except OSError as error:
                reason = str(error)
            if child == 0:
                self._be(request, pipe, output, errors)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
        if child is None:
            tell(pipe, unsafe=reason)
            kept.append(pipe)
        else:
            with contextlib.suppress(OSError):
                os.setpgid(child, child)  # as the child does: whoever is told of it finds its group
            self._reports[child] = pipe
            tell(pipe, pid=child)
        for file in (output, errors, *kept):
            os.close(file)
        return True

    def _be(self, request: Mapping[str, Any], pipe: int, output: int, errors: int) -> NoReturn:
        """In the child: let go of what is the server's, be what was asked for, end."""
        status = 1
        try:
            for file in (pipe, self._wake, self._woken, *self._reports.values()):
                os.close(file)
            self._reports.clear()
            self._selector.close()
            self._connection.close()
            status = become(request, output, errors, self._added_path, self._library_path)
        except BaseException:  # noqa: BLE001  (nothing may return into the server's loop)
            traceback.print_exc()
        finally:
            os._exit(status & 0xFF)


def receive(connection: socket.socket) -> tuple[bytes, list[int]]:
    """One message and its files; an empty one when the other end is closed."""
    message, files, _, _ = socket.recv_fds(connection, MESSAGE_BYTES, MOST_FILES)
    return message, list(files)


def tell(pipe: int, **values: Any) -> None:
    """Write one line of JSON; an owner that does not listen any more is no error."""
    with contextlib.suppress(BrokenPipeError):
        os.write(pipe, json.dumps(values).encode() + b"\n")


def main(arguments: Sequence[str]) -> int:
    """Import what the first message names, say so, and serve."""
    connection = socket.socket(fileno=int(arguments[0]))
    message, _ = receive(connection)
    if not message:
        return 0
    request = json.loads(message)
    end_with_parent(request["owner"], signal.SIGTERM)
    path = list(sys.path)
    preload(request["modules"])
    gc.collect()
    gc.freeze()  # objects that are never collected are never written to: their pages stay shared
    connection.send(READY)
    server = Server(connection, path)
    try:
        server.serve()
    finally:
        server.end_children()
    return 0


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
