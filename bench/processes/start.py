"""Starting a child process: as a fork of a server where that is possible, else as a fresh interpreter.

    with fork_server(["bench.worker.__main__"]):
        child = start("bench.worker.__main__", [folder], child_environment({}))
        child.wait()

Both ways run `main(arguments)` of a module in the same environment and folder, at the head of a process group of its
own. `TUNEMATRIX_START_METHOD=fresh` turns forks off; where forking is not safe (macOS) they are off.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final

from bench.processes.environment import child_environment, read_too_early
from bench.processes.fork_server import (
    Child,
    ForkServer,
    ServerEndedError,
    StartMethod,
    UnsafeForkError,
    interpreter,
)
from bench.processes.lifetime import OWNER

SWITCH: Final = "TUNEMATRIX_START_METHOD"
GRACE_SECONDS: Final = 5.0
ATTEMPTS: Final = 2  # should a server die


class FreshProcess(subprocess.Popen[bytes]):
    """A child that is an interpreter of its own."""

    start_method: ClassVar[StartMethod] = "fresh"
    lost = False


class _Current:
    """The server that `start` forks from, if any."""

    server: ForkServer | None = None
    modules: Sequence[str] = ()


_current = _Current()


def may_fork() -> bool:
    """Whether children are forked here: on Linux, unless the switch says `fresh`."""
    method = os.environ.get(SWITCH, "fork")
    if method not in ("fork", "fresh"):
        raise ValueError(f"{SWITCH}={method}: there is fork and fresh")
    return method == "fork" and sys.platform == "linux"


@contextlib.contextmanager
def fork_server(modules: Sequence[str]) -> Iterator[None]:
    """Inside, children are forks of a process that has imported `modules`; of one outside the block, if there is."""
    if _current.server or not may_fork():
        yield
        return
    _current.server, _current.modules = ForkServer(modules), modules
    try:
        yield
    finally:
        if _current.server:
            _current.server.close()
        _current.server = None


def living_server() -> ForkServer | None:
    """The server to fork from, if any; one that has died is started again, so that no child is the worse for it."""
    if _current.server and not _current.server.is_alive():
        _current.server.close()
        _current.server = ForkServer(_current.modules)
    return _current.server


def wait_for_server() -> None:
    """Wait until a child can start at once, so that no clock counts the server's imports."""
    if server := living_server():
        with contextlib.suppress(OSError):  # it is gone: the next start sees to it
            server.wait_until_ready()


def start(
    module: str,
    arguments: Sequence[str | Path],
    environment: Mapping[str, str],
    *,
    output: int = 1,
    errors: int = 2,
    inherited: Sequence[int] = (),
) -> Child:
    """Run `main(arguments)` of `module` in a child. output, errors, inherited: open files it is to have."""
    words = list(map(str, arguments))
    server, reason = living_server(), ""
    for _ in range(ATTEMPTS):
        if server is None or not may_fork() or read_too_early(server.environment, environment):
            break
        try:
            return server.fork(module, words, environment, [output, errors, *inherited])
        except ServerEndedError as error:
            reason, server = str(error), living_server()
        except (UnsafeForkError, OSError) as error:
            reason = str(error)
            break
    if server and reason:
        print(f"Each run starts an interpreter of its own, which takes seconds: {reason}", file=sys.stderr, flush=True)
        server.close()
        _current.server = None
    return FreshProcess(
        [*interpreter(), "-m", module.removesuffix(".__main__"), *words],
        stdin=subprocess.DEVNULL, stdout=output, stderr=errors, start_new_session=True,
        env={**environment, OWNER: str(os.getpid())}, pass_fds=tuple(inherited),
    )  # fmt: skip


def run_child(module: str, arguments: Sequence[str | Path], *, output: int = 1) -> int:
    """Run `main(arguments)` of `module` in a child and wait for its exit status; an exception here ends it."""
    sys.stdout.flush()
    sys.stderr.flush()
    for _ in range(ATTEMPTS):
        child = start(module, arguments, child_environment({}), output=output)
        try:
            status = child.wait()
        finally:
            kill_group(child)
        if not child.lost:
            break
    return status


def kill_group(child: Child) -> None:
    """End the child and everything it started: asked first, then killed."""
    for number, patience in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
        try:
            os.killpg(child.pid, number)
        except (ProcessLookupError, PermissionError):
            break
        if child.poll() is None:
            try:
                child.wait(patience)
            except subprocess.TimeoutExpired:
                continue
    child.wait()
