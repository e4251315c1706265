"""One sweep: prepare, plan, run what is not finished yet, collect, print, draw.

The parent of all runs. It never imports torch, so it holds no GPU memory and starts at once; what needs torch
(the task's data and model, looking at plans on the device) is asked of a child process first.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from bench.collect import collect
from bench.environment import git_state
from bench.events import Folded
from bench.launcher import RECORD_FILE, Surroundings, launch, write_record
from bench.matrix import Rules, build_matrix, with_baseline
from bench.progress import duration, make_display
from bench.record import FINAL, SCHEMA_VERSION, read_json, write_json
from bench.spec import RunSpec
from bench.table import print_results, print_table
from strategies import NamedPlan, compose
from strategies.cards import card

ROOT = Path(__file__).resolve().parent.parent
MARKER = "sweep.json"


class InputError(ValueError):
    """What the user asked for cannot be done; the message is one line: what, where, the alternative."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """A sweep as asked for on the command line."""

    plans: Sequence[NamedPlan]
    rules: Rules
    task: str
    overrides: Mapping[str, Any]
    out: Path
    device: str = ""
    baseline: bool = True
    force: bool = False
    dry_run: bool = False
    timeout_seconds: float | None = None
    command: Sequence[str] = ()


def run_sweep(request: Request) -> list[dict[str, Any]]:
    """Do the whole sweep and return the rows of the runs that were asked for.

    InputError before anything is written when the request cannot be served.
    """
    check_out(request.out)
    plans = with_baseline(request.plans, wanted=request.baseline)
    prepared = prepare(request, plans)
    specs = build_matrix(plans, prepared, request.rules)
    refuse_if_none_can_run(request, specs)
    if request.dry_run:
        print_matrix(specs, request.out)
        return []
    with claim(request.out, request):
        shutil.copytree(prepared["side_files"], request.out, dirs_exist_ok=True)
        shutil.rmtree(prepared["side_files"])
        run_all(specs, request, prepared)
        records = collect(request.out)
    wanted = {spec.run_id for spec in specs}
    return [dict(record["row"]) for record in records if record["run_id"] in wanted]


def check_out(out: Path) -> None:
    """InputError when results cannot or should not be written there."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file, not a folder; name another folder")
    if out.is_dir() and any(out.iterdir()) and not (out / MARKER).exists():
        raise InputError(f"--out {out}: holds files that no sweep wrote; name an empty or a new folder")
    existing = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise InputError(f"--out {out}: {existing} is not writable; name another folder")


def prepare(request: Request, plans: Sequence[NamedPlan]) -> dict[str, Any]:
    """Ask a child process about task, data, model, device and every plan. InputError carries its one line."""
    scratch = Path(tempfile.mkdtemp(prefix="tunematrix-"))
    asked = {
        "task": request.task, "overrides": dict(request.overrides), "device": request.device,
        "plans": [str(named.plan) for named in plans],
        "side_files": "" if request.dry_run else str(scratch / "side_files"),
    }  # fmt: skip
    (scratch / "side_files").mkdir()
    write_json(scratch / "request.json", asked)
    command = [
        sys.executable,
        "-m",
        "bench.prepare",
        str(scratch / "request.json"),
        str(scratch / "answer.json"),
    ]
    child = subprocess.run(command, stdout=sys.stderr, env=child_environment({}), check=False)
    if not (scratch / "answer.json").exists():
        raise InputError(f"looking at task and data failed (exit status {child.returncode}); its traceback is above")
    answer: dict[str, Any] = read_json(scratch / "answer.json")
    if "error" in answer:
        shutil.rmtree(scratch)
        raise InputError(answer["error"])
    return answer | {"side_files": scratch / "side_files"}


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Environment of a child: it finds this suite, and tasks in the current folder, on its path."""
    paths = [str(ROOT), str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, **extra, "PYTHONPATH": os.pathsep.join(paths)}


def refuse_if_none_can_run(request: Request, specs: Sequence[RunSpec]) -> None:
    """InputError when nothing that was asked for can run: a sweep of refusals helps nobody."""
    asked = {named.text for named in request.plans}
    wanted = [spec for spec in specs if spec.strategy in asked]
    if not request.dry_run and wanted and all(spec.refusal for spec in wanted):
        reasons = dict.fromkeys(f"{spec.strategy}: {spec.refusal['reason']}" for spec in wanted if spec.refusal)
        raise InputError("nothing to run: " + "; ".join(reasons))


class claim:  # noqa: N801  (a context manager reads as a verb)
    """Mark the folder as a sweep's and hold it, so that two sweeps never write to one folder."""

    def __init__(self, out: Path, request: Request) -> None:
        self._out, self._request = out, request
        self._lock: TextIO | None = None

    def __enter__(self) -> None:
        self._out.mkdir(parents=True, exist_ok=True)
        self._lock = (self._out / ".lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(
                f"--out {self._out}: another sweep is writing there; wait for it or name another folder"
            ) from error
        write_json(self._out / MARKER, {"schema": SCHEMA_VERSION, "command": list(self._request.command)})
        write_json(self._out / "strategies.json", cards(self._request.plans))

    def __exit__(self, *_: object) -> None:
        assert self._lock is not None
        self._lock.close()
        with suppress(FileNotFoundError):
            (self._out / ".lock").unlink()


def cards(plans: Sequence[NamedPlan]) -> dict[str, Any]:
    """Method cards of every strategy in the sweep, for the report."""
    return {member.name: card(type(member)) for named in plans for member in named.plan.members}


def run_all(specs: Sequence[RunSpec], request: Request, prepared: Mapping[str, Any]) -> None:
    """Run what has no final record yet; Ctrl-C keeps every finished run."""
    columns = {**git_state(ROOT), "cache_seconds": prepared["cache_seconds"]}
    surroundings = Surroundings(sweep=request.out.name, columns=columns, timeout_seconds=request.timeout_seconds)
    todo = [spec for spec in specs if request.force or not finished(request.out, spec)]
    if len(todo) < len(specs):
        print(
            f"{len(specs) - len(todo)} of {len(specs)} runs are finished already in {request.out} (--force runs them again)"
        )
    display = make_display(len(todo))
    try:
        for number, spec in enumerate(todo, 1):
            folder = run_folder(request.out, spec)
            display.begin(f"{spec.strategy} · seed {spec.seed}", number)
            if spec.refusal:
                shutil.rmtree(folder, ignore_errors=True)
                record = write_record(spec, Folded(**spec.refusal), folder, surroundings)
            else:
                environ = child_environment(compose(spec.plan).environ())
                record = launch(spec, folder, surroundings, environ=environ, watch=display.event)
            display.end(outcome(record["row"]))
    finally:
        display.close()


def run_folder(out: Path, spec: RunSpec) -> Path:
    """Where everything of one run lies."""
    return out / "runs" / spec.run_id


def finished(out: Path, spec: RunSpec) -> bool:
    """Whether the run has a record that a new attempt could not change."""
    path = run_folder(out, spec) / RECORD_FILE
    return path.exists() and not spec.refusal and read_json(path)["row"]["status"] in FINAL


def outcome(row: Mapping[str, Any]) -> str:
    """One line about a run that ended."""
    if row["status"] != "ok":
        return f"{row['status']} in {row.get('section', 'planning')}: {row.get('reason', '')}"
    scores = f"accuracy {100 * row['accuracy']:.1f} %  TTT {duration(row['ttt_seconds'])}"
    peak = row.get("peak_allocated_bytes")
    return scores + (f"  peak {peak / 2**20:.0f} MiB" if peak else "")


def print_matrix(specs: Sequence[RunSpec], out: Path) -> None:
    """The planned runs, with what refuses them and what is finished already."""
    rows = []
    for spec in specs:
        state = "finished" if finished(out, spec) else "to run"
        if spec.refusal:
            state = f"{spec.refusal['status']}: {spec.refusal['reason']}"
        rate = "" if spec.lr is None else f"{spec.lr:g}"
        length = f"{spec.max_steps} steps" if spec.max_steps else f"{spec.epochs:g} epochs"
        rows.append(
            [
                spec.run_id,
                spec.strategy,
                spec.plan,
                str(spec.seed),
                rate,
                f"{spec.head_lr:g}",
                str(spec.batch_size),
                length,
                state,
            ]
        )
    print_table(["run", "strategy", "plan", "seed", "lr", "head lr", "batch", "length", "state"], rows)


def show(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Print the table and draw the figures."""
    print()
    print_results(rows)
    drawn = subprocess.run([sys.executable, "-m", "report", str(out)], env=child_environment({}), check=False)
    if drawn.returncode == 0:
        print(f"\nCSVs, figures and summary: {out}")
    else:
        print(f"\nCSVs: {out} (drawing the figures failed, see above)")
    failed = [f"{row['strategy']} (seed {row['seed']})" for row in rows if row["status"] != "ok"]
    if failed:
        print(
            f"{len(failed)} of {len(rows)} runs did not end ok: {', '.join(failed)}. Logs: {out}/runs/<run_id>/log.txt"
        )
