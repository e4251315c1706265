"""Fetches files over HTTP through whatever goes wrong on the way.

Bytes go to a part file; beside it stands what the server said of the object (validator, size, digest). So an attempt,
in this process or a later one, goes on where the last one broke off, and only while the server has the same object.
What arrived whole is checked against size and digest, then `accept` puts it in place or refuses it. All threads share
one pool of connections of httpx2, the client that huggingface_hub uses.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

from vqa_model.downloading.response_headers import RemoteObject, digest_of, retry_after

if TYPE_CHECKING:
    import httpx2
    from typing_extensions import Self

USER_AGENT: Final = "TuneMatrix dataset download (python -m vqa_model.download)"
MAX_WAIT_SECONDS: Final = 600.0  # a server that asks for more is not going to answer today
_MAX_BACKOFF_SECONDS = 60.0
_PROGRESS_BYTES = 1 << 20  # an attempt that brought this much was no failure: the count starts again
_TICK_SECONDS = 0.2
_PARTIAL_CONTENT, _RETRYABLE, _RANGE_NOT_SATISFIABLE = 206, {408, 425, 429}, 416


class FetchError(Exception):
    """A file could not be had; the message says why in one line."""


class RetryableError(Exception):
    """An attempt failed in a way that may pass; the server may have asked to wait."""

    def __init__(self, reason: str, wait_seconds: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_seconds = wait_seconds


class DamagedError(RetryableError):
    """What arrived is not what should have arrived; it is thrown away."""


class Watcher(Protocol):
    """Told, from any thread, what happens on the way."""

    def received(self, num_bytes: int) -> None:
        """Bytes arrived."""

    def retried(self, reason: str) -> None:
        """An attempt failed and will be repeated."""


@dataclass(frozen=True)
class Job:
    """One file to fetch: `part` is where it grows, `accept` moves it to its place or raises DamagedError."""

    name: str
    url: str
    part: Path
    accept: Callable[[Path], None]


class Fetcher:
    """Fetches jobs, from any number of threads, until `stop` is set."""

    def __init__(
        self, watcher: Watcher, *, workers: int, retries: int, stall_seconds: float, backoff_seconds: float
    ) -> None:
        import httpx2

        self.watcher, self.workers, self.retries = watcher, workers, retries
        self.stall_seconds, self.backoff_seconds = stall_seconds, backoff_seconds
        self.stop = threading.Event()
        self._client = httpx2.Client(
            timeout=httpx2.Timeout(stall_seconds, pool=None),
            limits=httpx2.Limits(max_connections=workers, max_keepalive_connections=workers),
            headers={"User-Agent": USER_AGENT, "Accept": "*/*", "Accept-Encoding": "identity"},
            follow_redirects=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Let every thread end at its next block of bytes."""
        self.stop.set()
        self._client.close()

    def fetch_all(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Exception | None] | None]:
        """Yield each job with what went wrong, in the order they end, and None now and then while nothing ends.

        Threads are daemons: an interrupted program ends at once, however long a server keeps it waiting.
        """
        todo: SimpleQueue[Job] = SimpleQueue()
        ended: SimpleQueue[tuple[Job, Exception | None]] = SimpleQueue()
        for job in jobs:
            todo.put(job)

        def work() -> None:
            while not self.stop.is_set():
                try:
                    job = todo.get_nowait()
                except Empty:
                    return
                problem: Exception | None = None
                try:
                    self.fetch(job)
                except Exception as error:  # noqa: BLE001 - whoever reads the results raises or reports it
                    problem = error
                ended.put((job, problem))

        for _ in range(min(self.workers, len(jobs))):
            threading.Thread(target=work, daemon=True).start()
        left = len(jobs)
        while left:
            try:
                yield ended.get(timeout=_TICK_SECONDS)
                left -= 1
            except Empty:
                yield None

    def fetch(self, job: Job) -> None:
        """Fetch one file; FetchError when the server refuses it or every attempt failed."""
        failures, largest = 0, _size(job.part)
        while not self.stop.is_set():
            try:
                return self._attempt(job)
            except RetryableError as problem:
                if isinstance(problem, DamagedError):
                    job.part.unlink(missing_ok=True)
                grown = _size(job.part) - largest
                failures = 1 if grown >= _PROGRESS_BYTES else failures + 1
                largest += max(0, grown)
                if failures > self.retries or problem.wait_seconds > MAX_WAIT_SECONDS:
                    raise FetchError(f"{problem} (attempt {failures}, the last)") from problem
                self.watcher.retried(str(problem))
                backoff = min(_MAX_BACKOFF_SECONDS, self.backoff_seconds * 2 ** (failures - 1))
                self.stop.wait(max(problem.wait_seconds, backoff * random.uniform(0.5, 1.0)))
        raise FetchError("stopped")

    def _attempt(self, job: Job) -> None:
        previous, offset = _read_metadata(job.part), _size(job.part)
        if previous is None or offset != previous.size:
            previous = self._receive(job, previous, offset if previous and previous.size else 0)
        if previous.size is not None and _size(job.part) != previous.size:
            raise DamagedError(f"{_size(job.part)} bytes arrived of {previous.size}")
        _check_digest(job.part, previous.digest)
        job.accept(job.part)
        _metadata_path(job.part).unlink(missing_ok=True)

    def _receive(self, job: Job, previous: RemoteObject | None, offset: int) -> RemoteObject:
        import httpx2

        headers = {"Range": f"bytes={offset}-"} if offset else {}
        if offset and previous and previous.validator:
            headers["If-Range"] = previous.validator
        try:
            with self._client.stream("GET", job.url, headers=headers) as response:
                _check_status(response)
                remote = RemoteObject.from_headers(response.headers)
                resumed = response.status_code == _PARTIAL_CONTENT
                if resumed and not _is_continuation(response, remote, previous, offset):
                    raise DamagedError("the file changed on the server")
                self._write(job, response, remote, resumed=resumed)
                return previous if resumed and previous else remote
        except httpx2.TimeoutException as error:
            raise RetryableError(f"nothing came for {self.stall_seconds:g} s") from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.TooManyRedirects) as error:
            raise FetchError(f"its address leads nowhere: {error}") from error
        except httpx2.RequestError as error:
            raise RetryableError(f"{type(error).__name__}: {error}") from error

    def _write(self, job: Job, response: httpx2.Response, remote: RemoteObject, *, resumed: bool) -> None:
        """Add what arrives to the part; a new object empties it before its own facts are noted."""
        with job.part.open("ab" if resumed else "wb") as file:
            if not resumed:
                _metadata_path(job.part).write_text(json.dumps(asdict(remote)), encoding="utf-8")
            for block in response.iter_raw():
                if self.stop.is_set():
                    raise FetchError("stopped")
                file.write(block)
                self.watcher.received(len(block))


def _metadata_path(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _read_metadata(part: Path) -> RemoteObject | None:
    try:
        return RemoteObject(**json.loads(_metadata_path(part).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # never begun, or killed while it was noted


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _check_status(response: httpx2.Response) -> None:
    status = response.status_code
    what = f"the server answered {status} {response.reason_phrase}".rstrip()
    if status == _RANGE_NOT_SATISFIABLE:
        raise DamagedError(what)
    if status in _RETRYABLE or response.is_server_error:
        wait_seconds = retry_after(response.headers.get("retry-after", ""), time.time())
        raise RetryableError(what + (f", ask again in {wait_seconds:.0f} s" if wait_seconds else ""), wait_seconds)
    if not response.is_success:
        raise FetchError(what)


def _is_continuation(
    response: httpx2.Response, remote: RemoteObject, previous: RemoteObject | None, offset: int
) -> bool:
    """Whether a range is the rest of the same object."""
    starts_there = response.headers.get("content-range", "").startswith(f"bytes {offset}-")
    return (
        starts_there and previous is not None and (remote.size, remote.validator) == (previous.size, previous.validator)
    )


def _check_digest(part: Path, digest: str) -> None:
    if not digest:
        return
    kind, expected = digest.split()
    found = digest_of(part, kind)
    if found != expected:
        raise DamagedError(f"its {kind} is {found}, the server says {expected}")
