"""One run, one process group of its own, one record: started, watched, killed if it must be, and folded.

The child's output goes to log.txt and is never parsed. Whatever ends the child, an exception, a signal, the
kernel's out-of-memory killer or --timeout, its events up to then are folded into the record with the reason.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from bench.processes.fork_server import Child
from bench.processes.scratch import scratch_folder
from bench.processes.start import kill_group, start, wait_for_server
from bench.records.checkpoint_folder import (
    DEADLINE,
    PAUSED,
    UnusableCheckpointError,
    checkpoint_folder,
    find_progress,
    remove_checkpoint,
    truncate_log,
    verify,
)
from bench.records.events import RunResult
from bench.records.json_files import write_json
from bench.records.spec import RunSpec
from bench.sweep.listener import Listener
from bench.sweep.request import LaunchOptions
from bench.sweep.run_log import LOG_FILE, last_line
from bench.sweep.write_record import write_record

WORKER: Final = "bench.worker.__main__"
SPEC_FILE: Final = "spec.json"
POLL_SECONDS = 0.1
KERNEL_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


def launch(spec: RunSpec, folder: Path, options: LaunchOptions, **more: Any) -> dict[str, Any] | None:
    """Run `spec` in `folder` and return its record, as `try_launch` does.

    What goes wrong in this process, a disk that is full or a folder that is gone, is the run's failure.
    """
    try:
        return try_launch(spec, folder, options, **more)
    except OSError as error:
        reason = f"{error.filename or folder}: {error.strerror}"
        return write_record(spec, RunResult(status="failed", reason=reason), folder, options)


def try_launch(
    spec: RunSpec,
    folder: Path,
    options: LaunchOptions,
    *,
    environ: Mapping[str, str],
    watch: Callable[[Mapping[str, Any]], None] = lambda _: None,
    attempts: int = 2,
) -> dict[str, Any] | None:
    """Run `spec` in `folder` and return its record, which is also written there; None when the deadline came first.

    A run that paused goes on; else the folder is emptied first. watch: called with every event as it arrives.
    attempts: how often the run may start, should the server that forked it die.
    KeyboardInterrupt kills the run and leaves no record.
    """
    progress = usable_progress(folder)
    if progress:
        truncate_log(folder, progress)
    else:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / SPEC_FILE, spec.to_json())
    wait_for_server()
    result, kills_before, started = RunResult(), oom_kill_count(), time.time()
    earlier = progress["wall_seconds"] if progress else 0.0
    timeout = None if options.timeout_seconds is None else options.timeout_seconds - earlier
    left = None if options.deadline is None else options.deadline - started
    listener = Listener(folder, result, watch, options.max_silence_seconds)
    seconds = min((s for s in (timeout, left) if s is not None), default=None)
    child, stopped = run_to_end(folder, options, environ, seconds, listener)
    ended = time.time()
    if child.lost and attempts > 1:  # not the run's fault, so it does not cost it
        return try_launch(spec, folder, options, environ=environ, watch=watch, attempts=attempts - 1)
    can_go_on = listener()
    result.row["start_method"] = child.start_method
    timed_out = can_go_on and stopped and timeout is not None and (left is None or timeout <= left)
    if not timed_out and not result.status and (stopped or child.returncode == PAUSED):
        return None
    result.row["wall_seconds"] = earlier + ended - started
    if result.ended_at is not None:
        result.sections["exit"] = {"seconds": ended - result.ended_at}
    if timed_out:
        result.status, result.reason = "timeout", f"stopped after --timeout {options.timeout_seconds:g} s"
    else:
        result.status, result.reason = ending(result, child.wait(), kills_before, folder)
    record = write_record(spec, result, folder, options)
    remove_checkpoint(folder)
    return record


def usable_progress(folder: Path) -> dict[str, Any] | None:
    """What a paused run goes on from; a line where its checkpoint cannot be used, as it then begins anew."""
    try:
        progress = find_progress(folder)
        if progress:
            verify(folder, progress)
    except UnusableCheckpointError as error:
        print(f"{checkpoint_folder(folder)}: {error}; its run begins anew", flush=True)
        return None
    return progress


def run_to_end(
    folder: Path,
    options: LaunchOptions,
    environ: Mapping[str, str],
    seconds: float | None,
    tick: Callable[[], bool],
) -> tuple[Child, bool]:
    """Start a run's process and wait for it; gives it, ended, and whether it was stopped.

    It is when its seconds are over, or when `tick`, which is called all the while, says that it cannot go on.
    """
    with (folder / LOG_FILE).open("ab") as log, scratch_folder() as scratch:
        environment = run_environment(environ, str(scratch), options.deadline)
        output = log.fileno()
        child = start(WORKER, [folder], environment, output=output, errors=output, inherited=options.inherited)
        try:
            return child, wait(child, seconds, tick)
        finally:
            kill_group(child)


def run_environment(environ: Mapping[str, str], scratch: str, deadline: float | None) -> dict[str, str]:
    """Environment of a run; scratch: a new folder for its temporary files, removed with them, also when it is killed.

    Compiling is always from cold, or its cost would depend on what ran before; torch cannot have spaces in this path.
    """
    limit = {} if deadline is None else {DEADLINE: repr(deadline)}
    cold = {"TORCHINDUCTOR_CACHE_DIR": scratch, "TRITON_CACHE_DIR": f"{scratch}/triton", "TMPDIR": scratch}
    return {**os.environ, **environ, **limit, **cold, "PYTHONUNBUFFERED": "1"}


def wait(child: Child, timeout: float | None, tick: Callable[[], bool]) -> bool:
    """Wait until the child ends; True when its time ran out before, or `tick`, called all the while, gave False."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            child.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            if not tick():
                return True
        else:
            return False
        if deadline is not None and time.monotonic() > deadline:
            return True


def oom_kill_count() -> int:
    """How often the kernel has killed a process for memory, here or on the machine; 0 where it does not say."""
    for counters in KERNEL_COUNTERS:
        if counters.exists():
            counts = dict(line.split() for line in counters.read_text().splitlines())
            return int(counts.get("oom_kill", 0))
    return 0


def ending(result: RunResult, code: int, kills_before: int, folder: Path) -> tuple[str, str]:
    """Status and reason: what the run said, if it came to say it; else what can be known from outside."""
    if not (folder / SPEC_FILE).exists():  # which was there before the run
        return "failed", f"its folder was removed while it ran: {folder}"
    return (result.status, result.reason) if result.status else exit_reason(code, kills_before, folder)


def exit_reason(code: int, kills_before: int, folder: Path) -> tuple[str, str]:
    """Status and reason of a process that ended without saying why."""
    if code == -signal.SIGKILL and oom_kill_count() > kills_before:
        return "oom", "killed by the kernel: the machine's memory ran out"
    last = last_line(folder / LOG_FILE)
    names = {int(number): number.name for number in signal.Signals}
    ending = f"killed by {names.get(-code, f'signal {-code}')}" if code < 0 else f"exited with status {code}"
    return "failed", f"process {ending}" + (f"; last line of its log: {last[:200]}" if last else "")
