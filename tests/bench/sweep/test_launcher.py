"""Real processes, really killed: every way a run can end leaves exactly one record with its reason."""

import dataclasses
import json
import subprocess
import time

import pytest

from bench.processes.environment import child_environment
from bench.processes.start import SWITCH
from bench.records.events import RunResult
from bench.records.record import SECTIONS
from bench.records.spec import RunSpec
from bench.sweep.launcher import ending, launch
from bench.sweep.listener import Listener
from bench.sweep.request import LaunchOptions
from bench.sweep.run_log import last_line
from strategies import compose

FULL = compose("full")
SPEC = RunSpec(
    members=FULL.canonical(), task="tests.bench.faulty_task:FaultyTask", task_options={}, data="0" * 12, model="0" * 12,
    seed=0, batch_size=16, epochs=2.0, max_steps=None, lr=1e-2, head_lr=1e-2, device="cpu",
    task_text="tests.bench.faulty_task:FaultyTask()",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("forks")]


def run(tmp_path, fault, *, at_step=12, timeout=None, max_silence=60.0):
    text = f"tests.bench.faulty_task:FaultyTask(fault={fault!r}, at_step={at_step})"
    spec = dataclasses.replace(SPEC, task_text=text, task_options={"fault": fault, "at_step": at_step})
    folder = tmp_path / "runs" / spec.run_id
    seen = []
    limits = {"timeout_seconds": timeout, "max_silence_seconds": max_silence}
    options = LaunchOptions(sweep="test", columns={"git_commit": "abc"}, **limits)
    record = launch(spec, folder, options, environ=child_environment({}), watch=seen.append)
    assert record == json.loads((folder / "record.json").read_text())
    assert sorted(tmp_path.rglob("record.json")) == [folder / "record.json"]
    return record, seen


@pytest.mark.parametrize("method", ["fork", "fresh"])
def test_a_run_that_ends_well(tmp_path, monkeypatch, method):
    monkeypatch.setenv(SWITCH, method)
    record, seen = run(tmp_path, "")
    row = record["row"]
    assert row["start_method"] == method
    assert (row["status"], row["section"], row["steps"], row["git_commit"]) == ("ok", "probe", 32, "abc")
    assert row["ttt_seconds"] == pytest.approx(row["warmup_seconds"] + row["train_seconds"] + row["setup_seconds"])
    assert row["accuracy"] > 0.7
    assert row["trainable_parameters"] == row["total_parameters"] == 8 * 32 + 32 + 32 * 32 + 32 + 32 * 2 + 2
    assert row["peak_allocated_bytes"] > row["weights_bytes"] == 4 * row["total_parameters"]
    assert set(record["sections"]) == set(SECTIONS) - {"checkpoint"}
    told = sum(section["seconds"] for section in record["sections"].values())
    assert told == pytest.approx(row["wall_seconds"], rel=0.01, abs=0.1), "nothing of the run's time is untold"
    parts = [row[f"{part}_step_seconds"] for part in ("forward", "backward", "optimizer", "data")]
    assert min(parts) > 0
    assert row["first_step_seconds"] <= row["warmup_seconds"]
    assert row["steady_data_wait_seconds"] < row["data_wait_seconds"] < row["ttt_seconds"]
    assert row["peak_tree_rss_bytes"] >= row["peak_rss_bytes"]
    assert not {"energy_joules", "peak_device_bytes", "device_step_seconds", "other_gpu_bytes"} & set(row), "no GPU"
    assert 0 < row["cpu_seconds"] < 4 * row["ttt_seconds"]
    assert {"cpu_wait_seconds", "other_cpu_seconds", "involuntary_switches"} <= set(record["sections"]["train"])
    assert {"cpu_wait_share", "other_cpu_share"} <= set(row), "Linux tells"
    assert {"loss", "accuracy"} == {point[3] for point in record["history"]}
    assert record["metrics"]["eval"]["accuracy"] == row["accuracy"]
    assert [event["step"] for event in seen if event["event"] == "step"][-1] == 32
    assert (tmp_path / "runs" / record["run_id"] / "predictions.parquet").exists()


@pytest.mark.parametrize(
    ("fault", "status", "reason"),
    [
        ("raise", "failed", "RuntimeError: the disk with the weights has gone"),
        ("exit", "failed", "exited with status 3"),
        ("kill", "failed", "killed by SIGKILL"),
        ("nan", "diverged", "loss became nan by step 16 of 32"),
        ("oom", "oom", "allocate memory"),
        ("segfault", "failed", "killed by SIGSEGV"),
        ("garble", "failed", "events.jsonl: line"),
    ],
)
def test_a_run_that_ends_badly(tmp_path, fault, status, reason):
    row = run(tmp_path, fault)[0]["row"]
    assert (row["status"], row["section"]) == (status, "train")
    assert reason in row["reason"]
    assert row["trainable_parameters"] > 0, "what was measured before is kept"
    assert "accuracy" not in row


def test_a_silent_run_is_stopped_and_one_that_tells_is_not(tmp_path):
    started = time.monotonic()
    row = run(tmp_path / "silent", "hang", max_silence=1.5)[0]["row"]
    assert time.monotonic() - started < 20
    told = "told nothing for 2 s in train, so it hangs or needs --max-silence"
    assert (row["status"], row["reason"], row["steps"]) == ("timeout", told, 11)
    row = run(tmp_path / "slow", "slow", max_silence=2.5)[0]["row"]
    assert row["status"] == "ok"
    assert row["wall_seconds"] > 2.6, "longer than it may be silent"


def test_a_run_that_told_its_end_and_hangs_in_leaving_ended_as_it_told(tmp_path):
    result = RunResult(status="ok")
    listener = Listener(tmp_path, result, lambda _: None, max_silence=0.0)
    time.sleep(0.01)
    assert (listener(), result.status) == (False, "ok")


def test_a_run_that_dies_before_it_tells_anything_has_its_reason(tmp_path):
    (tmp_path / "spec.json").touch()
    (tmp_path / "log.txt").write_text("ImportError: of what is imported first\n")
    told = ending(RunResult(), 1, 0, tmp_path)
    assert told == (
        "failed",
        "process exited with status 1; last line of its log: ImportError: of what is imported first",
    )
    (tmp_path / "spec.json").unlink()
    assert "its folder was removed" in ending(RunResult(), 1, 0, tmp_path)[1]


def test_a_crash_says_where_in_the_log(tmp_path):
    record = run(tmp_path, "segfault")[0]
    log = (tmp_path / "runs" / record["run_id"] / "log.txt").read_text()
    assert "Segmentation fault" in log
    assert "faulty_task.py" in log


def test_a_flood_of_output_is_cut_and_its_end_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.sweep.run_log.LOG_MOST_BYTES", 1 << 20)
    monkeypatch.setattr("bench.sweep.run_log.LOG_KEPT_BYTES", 1 << 16)
    record = run(tmp_path, "flood")[0]
    assert record["row"]["reason"] == "RuntimeError: and then it ended"
    log = tmp_path / "runs" / record["run_id"] / "log.txt"
    assert log.stat().st_size < 2 << 20
    assert log.read_text().startswith("0 xxx")
    assert "bytes were left out here" in log.read_text()
    log.write_bytes(b"x" * (200 << 20) + b"\nthe end\n\n")
    started = time.monotonic()
    assert last_line(log) == "the end"
    assert time.monotonic() - started < 0.05, "of a long log only the end is read"


def test_a_folder_that_vanishes_is_a_row(tmp_path):
    row = run(tmp_path, "vanish")[0]["row"]
    assert (row["status"], "its folder was removed" in row["reason"]) == ("failed", True)


def test_the_same_seed_gives_the_same_however_runs_start(tmp_path, monkeypatch):
    one = run(tmp_path / "one", "")[0]
    monkeypatch.setenv(SWITCH, "fresh")
    two = run(tmp_path / "two", "")[0]
    assert one["metrics"] == two["metrics"]
    assert [point[4] for point in one["history"]] == [point[4] for point in two["history"]]
    assert one["memory"] == two["memory"]
    assert one["row"]["peak_allocated_bytes"] == two["row"]["peak_allocated_bytes"]


def test_a_hanging_run_and_its_children_are_killed(tmp_path):
    started = time.monotonic()
    row = run(tmp_path, "hang", timeout=4)[0]["row"]
    assert time.monotonic() - started < 20
    assert (row["status"], row["reason"]) == ("timeout", "stopped after --timeout 4 s")
    assert (row["section"], row["steps"]) == ("train", 11), "it hung in training, and what was measured is kept"
    processes = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 3600.125" not in processes
