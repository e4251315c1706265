"""One sweep: prepare, plan, run what is not finished yet, collect, print, draw.

The parent of all runs. It never imports torch, so it holds no GPU memory and starts at once; what needs torch
(the task's data and model, looking at plans on the device) is asked of a child process first.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from bench.processes.environment import ROOT, child_environment
from bench.processes.scratch import remove_abandoned, scratch_folder
from bench.processes.start import fork_server
from bench.records.collect import collect
from bench.records.environment import git_state
from bench.records.events import RunResult
from bench.records.json_files import write_json
from bench.records.results_folder import InputError, check_output_folder, is_finished, lock_folder, run_folder
from bench.records.run_records import read_runs, set_damaged_aside
from bench.records.spec import RunSpec
from bench.sweep.child_processes import modules_to_preload, prepare
from bench.sweep.idle import disturbed_lines, refuse_if_busy
from bench.sweep.launcher import launch
from bench.sweep.matrix import (
    build_matrix,
    certain_refusal,
    refuse_if_none_can_run,
    with_baseline,
)
from bench.sweep.progress import duration, introduce, make_display
from bench.sweep.request import LaunchOptions, Request
from bench.sweep.table import outcome, percent, print_matrix, print_results
from bench.sweep.time_limit import TimeLimitReachedError
from bench.sweep.tuning import in_tuned_setting, trial_runs, tunable, tune, tuned_rate
from bench.sweep.write_record import relabel, write_record
from strategies import NamedPlan, catalogue, compose
from strategies.cards.card import card

OTHER_GPU_BYTES_REPORTED = 2**28  # bytes on the GPU


def run_sweep(request: Request) -> list[dict[str, Any]]:
    """Do the whole sweep and return the rows of the runs that were asked for.

    InputError before anything is written when the request cannot be served.
    """
    check_output_folder(request.out)
    read_runs(request.out)  # one of a newer version is better known now than after the runs
    if not request.dry_run:
        refuse_if_none_can_run(request.plans, {named.text: certain_refusal(named) for named in request.plans})
    plans = with_baseline(request.plans, include=request.baseline)
    if request.require_idle and not request.dry_run:
        refuse_if_busy()
    remove_abandoned()
    with fork_server(modules_to_preload(request.task, plans)), scratch_folder() as scratch:
        return run_prepared(request, plans, scratch)


def run_prepared(request: Request, plans: Sequence[NamedPlan], scratch: Path) -> list[dict[str, Any]]:
    """Look at data, model and plans, then run them; gives the rows of the runs that were asked for."""
    if not request.dry_run:
        print(f"Looking at the data, the model and {len(plans)} recipes first", flush=True)
    prepared = prepare(request, plans, scratch)
    if request.memory_snapshot and not prepared["device"].startswith("cuda"):
        raise InputError(f"--memory-snapshot: needs a CUDA GPU, this is {prepared['device']}; memory.csv has the kinds")
    specs = [
        replace(spec, memory_snapshot=request.memory_snapshot)
        for spec in build_matrix(plans, prepared, request.training)
    ]
    if request.tune:
        if not prepared["tune_samples"]:
            raise InputError("--tune: the task has no tune set to choose by; give it a tune_set, or leave out --tune")
        specs = in_tuned_setting(specs, request.tune)
    if request.dry_run:
        print_planned(specs, request)
        return []
    batch_size = request.training.batch_size or prepared["main"]["batch_size"]
    if batch_size > prepared["train_samples"]:
        raise InputError(f"--batch-size {batch_size} is larger than the training set ({prepared['train_samples']})")
    refuse_if_none_can_run(request.plans, {spec.strategy: spec.refusal for spec in specs})
    with lock_folder(request.out, request.command) as lock:
        print(*(f"{line}\n" for line in set_damaged_aside(request.out)), sep="", end="", flush=True)
        introduce(prepared, len(specs), request.tune, request.out)
        write_json(request.out / "strategies.json", cards(plans))
        shutil.copytree(prepared["side_files"], request.out, dirs_exist_ok=True)
        run = partial(run_all, request=request, prepared=prepared, lock=lock, just_run=set())
        try:
            with suppress(TimeLimitReachedError):  # request.time_limit says how far it came
                specs = tune(specs, request.tune, request.out, run) if request.tune else specs
                run(specs)
        finally:  # an interrupted sweep has its CSVs too
            records = collect(request.out)
    run_ids = {spec.run_id for spec in specs}
    return [dict(record["row"]) for record in records if record["run_id"] in run_ids]


def cards(plans: Sequence[NamedPlan]) -> dict[str, Any]:
    """Method cards of every strategy in the sweep, for the report."""
    names = {member["name"] for named in plans for member in named.plan.canonical()}
    return {name: card(catalogue()[name]) for name in sorted(names)}


def print_planned(specs: Sequence[RunSpec], request: Request) -> None:
    """Print what would run; with --tune the trials, since what follows them is not known."""
    refused = [spec for spec in specs if spec.refusal]
    shown = [*trial_runs(specs, request.tune), *refused] if request.tune else specs
    done = {spec.run_id for spec in shown if is_finished(request.out, spec.run_id, undisturbed=request.require_idle)}
    print_matrix(shown, done)
    if request.tune and (left := len(specs) - len(tunable(specs)) - len(refused)):
        print(f"Then {left} runs at the rates that did best on the tune set: the other seeds, and controls.")


def run_all(
    specs: Sequence[RunSpec], request: Request, prepared: Mapping[str, Any], lock: int, just_run: set[str]
) -> None:
    """Run what has no final record yet; Ctrl-C keeps every finished run.

    just_run: ids of what this sweep has run already, which --force does not run again; grows.
    """
    columns = {**git_state(ROOT), "cache_seconds": prepared["cache_seconds"]}
    options = LaunchOptions(
        sweep=request.out.name,
        columns=columns,
        timeout_seconds=request.timeout_seconds,
        max_silence_seconds=request.max_silence_seconds,
        inherited=(lock,),
        deadline=request.time_limit.deadline if request.time_limit else None,
    )
    new = [spec for spec in specs if spec.run_id not in just_run]
    finished = partial(is_finished, request.out, undisturbed=request.require_idle)
    todo = [spec for spec in new if request.force or not finished(spec.run_id)]
    if len(todo) < len(new):
        done = f"{len(new) - len(todo)} of {len(new)} runs are finished already in {request.out}"
        print(f"{done} (--force runs them again)")
    to_run = {spec.run_id for spec in todo}
    for spec in specs:
        if spec.run_id not in to_run:
            relabel(spec, run_folder(request.out, spec.run_id))
    just_run |= to_run
    display, started, training = make_display(len(todo)), time.monotonic(), 0.0
    try:
        for number, spec in enumerate(todo, 1):
            folder = run_folder(request.out, spec.run_id)
            rate = " · {} {:g}".format(*tuned_rate(spec)) if spec.kind == "tuning" else ""
            display.begin(f"{spec.strategy} · seed {spec.seed}{rate}", number)
            if spec.refusal:
                shutil.rmtree(folder, ignore_errors=True)
                record = write_record(
                    spec, RunResult(status=spec.refusal["status"], reason=spec.refusal["reason"]), folder, options
                )
            else:
                if request.time_limit:
                    request.time_limit.check(spec, todo, number, folder)
                environ = child_environment(compose(spec.plan).environ())
                ran = launch(spec, folder, options, environ=environ, watch=display.event)
                if ran is None:
                    assert request.time_limit is not None
                    request.time_limit.stop(spec, todo, number, folder)
                record = ran
            training += sum(record["row"].get(part) or 0.0 for part in ("warmup_seconds", "train_seconds"))
            display.end(outcome(record["row"]))
    finally:
        display.close()
    if todo:
        elapsed = time.monotonic() - started
        print(f"{len(todo)} runs in {duration(elapsed)}, {percent(training / elapsed)} % of it training")


def report_results(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    """Print the table and draw the figures."""
    print()
    print_results(rows)
    sys.stdout.flush()  # the report's lines come after the table, also in a file
    drawn = subprocess.run([sys.executable, "-m", "report", "all", str(out)], env=child_environment({}), check=False)
    if drawn.returncode == 0:
        print(f"\nCSVs, figures and summary: {out}")
    else:
        print(f"\nCSVs: {out} (drawing the figures failed, see above)")
    shared = [row for row in rows if row.get("other_gpu_bytes", 0) > OTHER_GPU_BYTES_REPORTED]
    if shared:
        most = max(row["other_gpu_bytes"] for row in shared) / 2**30
        print(f"Others used the GPU when {len(shared)} runs began ({most:.1f} GiB at most): their times say little.")
    for line in disturbed_lines(rows):
        print(line)
    failed = [f"{row['strategy']} (seed {row['seed']})" for row in rows if row["status"] != "ok"]
    if failed:
        print(
            f"{len(failed)} of {len(rows)} runs did not end ok: {', '.join(failed)}. Logs: {out}/runs/<run_id>/log.txt"
        )
