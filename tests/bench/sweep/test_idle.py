"""--require-idle and what is said of disturbed runs, on stand-ins for a machine."""

import os

import pytest

from bench.commands.cli import main
from bench.records.json_files import write_json
from bench.records.results_folder import InputError, is_finished
from bench.sweep import idle
from bench.sweep.table import few_repeats, outcome, result_cells
from bench.worker.cpu_time import CpuTimes


@pytest.fixture
def machine(monkeypatch):
    """A machine of two CPUs that was watched for a second in which others were busy for so long."""

    def make(others):
        moments = [
            CpuTimes(cpus={0, 1}, own=0.0, busy=busy, pressure=None, waits={}, clock=clock, switches=0)
            for busy, clock in ((5.0, 10.0), (None if others is None else 5.0 + others, 11.0))
        ]
        monkeypatch.setattr(idle, "CpuTimes", lambda: moments.pop(0))
        monkeypatch.setattr(idle, "WATCHED_SECONDS", 0.0)

    return make


@pytest.mark.parametrize("others", [0.0, 0.1])
def test_a_quiet_machine_lets_a_sweep_begin(machine, others):
    machine(others)
    idle.refuse_if_busy()


def test_a_busy_machine_is_refused_with_what_is_busy(machine, monkeypatch):
    machine(1.0)
    seconds = iter([{os.getpid(): 3.0, 1: 2.0}, {os.getpid(): 4.0, 1: 2.0}])
    monkeypatch.setattr(idle, "cpu_seconds_by_process", lambda: next(seconds))
    with pytest.raises(InputError, match=rf"others use 1\.0 of 2 CPUs \(most by .*, process {os.getpid()}\); wait"):
        idle.refuse_if_busy()


def test_a_system_that_does_not_tell_is_refused_too(machine):
    machine(None)
    with pytest.raises(InputError, match="does not tell who uses its CPUs"):
        idle.refuse_if_busy()


def test_a_process_that_nobody_sees_is_not_named():
    assert idle.busiest({}) == "", "a process that was not there before has no time of which anything is known"


def test_the_option_refuses_before_anything_is_written(machine, tmp_path, capsys):
    machine(2.0)
    status = main(["--require-idle", "--strategies", "lora", "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert status == 2
    assert said.err.startswith("run_matrix.py: --require-idle: others use 2.0 of 2 CPUs")
    assert said.err.count("\n") == 1
    assert "Looking at the data" not in said.out
    assert not (tmp_path / "out").exists()


def test_a_disturbed_run_is_finished_but_not_where_times_must_count(tmp_path):
    ids = [letter * 12 for letter in "abcd"]
    for run_id, changes in zip(ids, ({}, {"disturbed": "others"}, {"status": "failed"}), strict=False):
        facts = {"schema": 1, "run_id": run_id, "row": row(created_at="2026", **changes), "history": []}
        empty = {part: {} for part in ("spec", "sections", "metrics", "memory")}
        write_json(tmp_path / "runs" / run_id / "record.json", facts | empty)
    assert [is_finished(tmp_path, run_id) for run_id in ids] == [True, True, False, False]
    assert [is_finished(tmp_path, run_id, undisturbed=True) for run_id in ids] == [True, False, False, False]


def row(strategy="lora", seed=0, **changes):
    return {"kind": "run", "strategy": strategy, "plan": strategy, "seed": seed, "status": "ok", "accuracy": 0.5,
            "ttt_seconds": 2.0, "peak_allocated_bytes": 2**20} | changes  # fmt: skip


WHY = "others used 1.0 of 2 CPUs, its threads waited 38 % of their time for one"


def test_the_lines_of_a_sweep_say_which_runs_why_and_the_way_out():
    assert idle.disturbed_lines([row(), row(seed=1)]) == []
    lines = idle.disturbed_lines(
        [row(), row(seed=1, disturbed=WHY), *(row(seed=n, disturbed="x") for n in range(2, 8))]
    )
    assert lines[0] == "Disturbed by other work on the machine, so without ratios of time: 7 of 8 runs."
    assert lines[1] == f"  lora (seed 1): {WHY}"
    assert lines[-2] == "  and 3 more"
    assert "--require-idle" in lines[-1]


@pytest.mark.parametrize(("own", "base", "cell"), [("", "", "2.0 s (0.50×)"), (WHY, "", "2.0 s"), ("", WHY, "2.0 s")])
def test_a_disturbed_run_has_no_ratio_of_time_and_one_of_memory(own, base, cell):
    cells = result_cells(row(disturbed=own), row("full", ttt_seconds=4.0, disturbed=base))
    assert cell in cells
    assert "1.0 MiB (1.00×)" in cells
    assert cells[-1] == ("ok, disturbed" if own else "ok")


def test_the_line_of_a_run_says_it():
    assert outcome(row()) == "accuracy 50.0 %  TTT 2 s  peak 1 MiB"
    assert outcome(row(disturbed=WHY)).endswith(f"  peak 1 MiB  disturbed: {WHY}")


def test_few_repeats_of_a_time_are_said():
    three = [row(seed=seed) for seed in (0, 1, 2)]
    assert few_repeats(three) == ""
    assert few_repeats([row(), row("full")]) == "One run each"
    assert few_repeats([*three, row("full"), row("full", seed=1)]) == "Two runs of some recipes"
    assert few_repeats([*three[:2], row(seed=2, disturbed=WHY)]) == "Two runs each"
    assert few_repeats([row(status="oom", ttt_seconds=None), row("blind", kind="control")]) == ""
