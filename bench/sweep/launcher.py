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
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Final

from bench.forecast.utilisation import utilisation
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
from bench.records.disturbance import disturbance_columns
from bench.records.events import EVENTS_FILE, EventReader, NoEventError, RunResult
from bench.records.files import sync_tree
from bench.records.record import SCHEMA_VERSION, TUNING_COLUMNS, sealed, write_json
from bench.records.run_records import RECORD_FILE, hashes, read_run
from bench.records.spec import RunSpec

WORKER: Final = "bench.worker.__main__"
POLL_SECONDS = 0.1
LOG_FILE: Final = "log.txt"
LOG_MOST_BYTES: Final = 64 << 20
LOG_KEPT_BYTES: Final = 1 << 20
LOG_END_BYTES: Final = 1 << 16
KERNEL_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """What every run of a sweep shares: its name, extra columns, and the limits it runs under."""

    sweep: str
    columns: dict[str, Any]
    inherited: tuple[int, ...] = ()
    timeout_seconds: float | None = None
    deadline: float | None = None  # seconds since the epoch


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
    write_json(folder / "spec.json", spec.to_json())
    wait_for_server()
    result, kills_before, started = RunResult(), oom_kill_count(), time.time()
    earlier = progress["wall_seconds"] if progress else 0.0
    timeout = None if options.timeout_seconds is None else options.timeout_seconds - earlier
    left = None if options.deadline is None else options.deadline - started
    reader = EventReader(folder / EVENTS_FILE)

    def read_events() -> bool:
        limit_log(folder / LOG_FILE)
        return take_in(reader, result, watch)

    seconds = min((s for s in (timeout, left) if s is not None), default=None)
    child, stopped = run_to_end(folder, options, environ, seconds, read_events)
    ended = time.time()
    if child.lost and attempts > 1:  # not the run's fault, so it does not cost it
        return try_launch(spec, folder, options, environ=environ, watch=watch, attempts=attempts - 1)
    can_go_on = read_events()
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


def take_in(reader: EventReader, result: RunResult, watch: Callable[[Mapping[str, Any]], None]) -> bool:
    """Fold what a run has told since the last time; whether it can go on: not after a line that is no event."""
    try:
        for event in reader():
            result.add(event)
            watch(event)
    except NoEventError as error:
        result.status, result.reason = "failed", str(error)
        return False
    return True


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
    if not (folder / EVENTS_FILE).exists():
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


def last_line(log: Path) -> str:
    """The last line with anything in it; of a long log only the end is read."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_END_BYTES))
        lines = file.read().decode(errors="replace").splitlines()
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def limit_log(log: Path) -> None:
    """Keep the beginning of a log that has grown too long; what is written after that follows it."""
    if log.is_file() and log.stat().st_size > LOG_MOST_BYTES:
        cut = log.stat().st_size - LOG_KEPT_BYTES
        os.truncate(log, LOG_KEPT_BYTES)  # it is open for appending, so the run writes on behind this
        with log.open("ab") as file:
            file.write(f"\n[{cut} bytes were left out here: the log had more than {LOG_MOST_BYTES}]\n".encode())


def write_record(spec: RunSpec, result: RunResult, folder: Path, options: LaunchOptions) -> dict[str, Any]:
    """Fold everything known about a run into its record and write it atomically."""
    row: dict[str, Any] = {
        "run_id": spec.run_id, "sweep": options.sweep, "strategy": spec.strategy, **sweep_columns(spec),
        "plan": spec.plan, "task": spec.task, "model": spec.model_name, "dataset": spec.dataset, "seed": spec.seed,
        "status": result.status, "reason": result.reason, "section": result.section, "device": spec.device,
        "batch_size": spec.batch_size, "lr": spec.lr, "head_lr": spec.head_lr,
        "predicted_peak_bytes": spec.predicted_peak_bytes, "model_flops_per_sample": spec.model_flops_per_sample,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }  # fmt: skip
    if "load" in result.sections:
        row["load_seconds"] = result.sections["load"]["seconds"]
    row |= training_totals(result) | disturbance_columns(result.sections, result.environment)
    row |= result.row | options.columns
    row |= {key: result.environment.get(key) for key in ("gpu_name", "environment_hash")}
    row |= utilisation(row, spec.members)
    memory = {k.removesuffix("_bytes"): row[k] for k in row if k in _MEMORY_COLUMNS}
    record = sealed({
        "schema": SCHEMA_VERSION, "run_id": spec.run_id, "spec": spec.to_json(),
        "row": {key: value for key, value in row.items() if value not in (None, "")},
        "sections": result.sections, "history": result.history, "metrics": result.metrics, "memory": memory,
        "environment": result.environment, "files": hashes(folder),
    })  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    sync_tree(folder)  # first weights, events and predictions, then the record that stands for them
    write_json(folder / RECORD_FILE, record)
    return record


def sweep_columns(spec: RunSpec) -> dict[str, Any]:
    """Columns that say what a run is in the sweep that asked for it; in another the same run may be something else."""
    return dict.fromkeys(TUNING_COLUMNS) | {"kind": spec.kind, "setting": spec.setting, **(spec.tuning or {})}


def relabel(spec: RunSpec, folder: Path) -> None:
    """Let a finished run's record say what the run is in this sweep; what was measured stays as it is."""
    record = read_run(folder)
    row = {**record["row"], **sweep_columns(spec)}
    row = {key: value for key, value in row.items() if value not in (None, "")}
    if row != record["row"]:
        excluded = {"kind": spec.kind, "setting": spec.setting, "tuning": spec.tuning}
        write_json(folder / RECORD_FILE, sealed({**record, "row": row, "spec": {**record["spec"], **excluded}}))


_MEMORY_COLUMNS = frozenset({"weights_bytes", "gradients_bytes", "optimizer_bytes", "activations_bytes"})


# Columns that are the most, or the sum, of what the training sections have under a name; the GPU's on CUDA only.
_TRAINING_COLUMNS: Final[dict[str, tuple[str, Callable[[list[float]], float]]]] = {
    "peak_allocated_bytes": ("peak_allocated_bytes", max),
    "peak_reserved_bytes": ("peak_reserved_bytes", max),
    "peak_device_bytes": ("device_bytes", max),
    "peak_rss_bytes": ("peak_rss_bytes", max),
    "peak_tree_rss_bytes": ("tree_rss_bytes", max),
    "energy_joules": ("energy_joules", sum),
}


def training_totals(result: RunResult) -> dict[str, float]:
    """Peaks and energy of the training sections."""
    parts = [result.sections[name] for name in ("warmup", "train") if name in result.sections]
    found = {
        column: (work, [part[name] for part in parts if name in part])
        for column, (name, work) in _TRAINING_COLUMNS.items()
    }
    return {column: work(values) for column, (work, values) in found.items() if values}
