"""A sweep that pauses and goes on is the sweep without a pause; killed at any moment, a checkpoint is whole."""

import dataclasses
import json
import subprocess
import sys
import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bench.commands.arguments import parse_duration
from bench.processes.environment import child_environment
from bench.records.checkpoint_folder import checkpoint_folder, commit_checkpoint, read_progress, write_progress
from bench.records.spec import RunSpec
from bench.sweep.launcher import launch
from bench.sweep.request import LaunchOptions
from bench.sweep.time_limit import TimeLimit, TimeLimitReachedError
from bench.worker.pause import Batches
from strategies import compose, load_checkpoint
from tests.bench.faulty_task import SLOW_SECONDS, FaultyTask

PLAN = "full+ema"
TASK = "tests.bench.faulty_task:FaultyTask"
SPEC = RunSpec(
    members=compose(PLAN).canonical(), task=TASK, task_options={"fault": "slow"}, data="0" * 12, model="0" * 12,
    seed=0, batch_size=16, epochs=2.0, max_steps=None, lr=1e-2, head_lr=1e-2, device="cpu", plan=PLAN,
    task_text=f"{TASK}(fault='slow')",
)  # fmt: skip


def start(folder, seconds=None):
    deadline = None if seconds is None else time.time() + seconds
    options = LaunchOptions(sweep="test", columns={}, deadline=deadline)
    return launch(SPEC, folder, options, environ=child_environment({}))


@pytest.mark.slow
def test_a_run_in_parts_is_the_run_in_one(tmp_path, forks):
    whole = start(tmp_path / "whole", 600)
    events = (tmp_path / "whole" / "events.jsonl").read_text().splitlines()
    assert sum('"section", "name": "checkpoint"' in line for line in events) == 5, "before evaluations, and at the end"
    parts, record, seconds, steps = tmp_path / "parts", None, 1.5, []
    while record is None:
        record = start(parts, None if len(steps) == 2 else seconds)
        place = read_progress(parts)
        assert (record is None) == (not (parts / "record.json").exists())
        if place and place["step"] not in steps:
            steps.append(place["step"])
        seconds += 0 if place else 1
    assert steps, "it paused within training"
    assert not checkpoint_folder(parts).exists()
    row, once = record["row"], whole["row"]
    assert row["status"] == once["status"] == "ok"
    assert [[p[0], *p[2:]] for p in record["history"]] == [[p[0], *p[2:]] for p in whole["history"]]
    assert record["metrics"] == whole["metrics"]
    for name in ("predictions.parquet", "weights/tuned.safetensors"):
        assert (parts / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert row["ttt_seconds"] == pytest.approx(row["warmup_seconds"] + row["train_seconds"] + row["setup_seconds"])
    assert row["train_seconds"] + row["warmup_seconds"] == pytest.approx(32 * SLOW_SECONDS, rel=0.3)
    assert row["samples_per_second"] == pytest.approx(16 / SLOW_SECONDS, rel=0.3)
    assert row["wall_seconds"] > once["wall_seconds"] > once["ttt_seconds"]
    assert record["sections"]["checkpoint"]["seconds"] > 0
    assert record["sections"]["load"]["seconds"] > 0
    assert [point[1] for point in record["history"]] == sorted(point[1] for point in record["history"])


@pytest.mark.slow
def test_a_sweep_that_reaches_its_limit_says_so_and_goes_on(run_matrix, tmp_path):
    words = ("--task", TASK, "--no-baseline", "--strategies", "freeze", "--out", tmp_path / "out")
    stopped = run_matrix(*words, "--time-limit", "0.1s")
    assert stopped.returncode == 75
    assert "0 of 1 runs done, freeze (seed 0) to start from its beginning, 0 not started" in stopped.stderr
    assert not list((tmp_path / "out").rglob("record.json"))
    done = run_matrix(*words, "--time-limit", "10m")
    assert (done.returncode, "time limit" in done.stderr) == (0, False)
    assert json.loads(next((tmp_path / "out").rglob("record.json")).read_text())["row"]["status"] == "ok"


WRITING = """
import sys
from pathlib import Path
from bench.records.checkpoint_folder import checkpoint_folder, commit_checkpoint, write_progress
from strategies import compose, save_checkpoint
from tests.bench.faulty_task import SLOW_SECONDS, FaultyTask
folder, number = Path(sys.argv[1]), 0
tuned = compose("full").apply(FaultyTask().build_model(), device="cpu", seed=0)
while True:
    number += 1
    new = checkpoint_folder(folder, "new")
    save_checkpoint(tuned, new / "state.pt", number=number)
    write_progress(new, step=number, total=9, events_bytes=0, seconds={}, wall_seconds=1.0)
    commit_checkpoint(folder)
    print(number, flush=True)
"""


@pytest.mark.slow
def test_killed_while_it_writes(root, tmp_path):
    tuned = compose("full").apply(FaultyTask().build_model(), device="cpu", seed=0)
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITING, str(tmp_path)], stdout=subprocess.PIPE, env=child_environment({}), cwd=root
    )
    with writer:
        for _ in range(20):
            writer.stdout.readline()
        time.sleep(0.0137)
        writer.kill()
        rest = [int(line) for line in writer.stdout.read().split()]
    place = read_progress(tmp_path)
    assert place["step"] >= max(rest, default=20)
    assert load_checkpoint(tuned, checkpoint_folder(tmp_path) / "state.pt")["number"] == place["step"]


def test_every_moment_of_the_move_leaves_a_checkpoint(tmp_path):
    def write(kind, step):
        folder = checkpoint_folder(tmp_path, kind)
        folder.mkdir()
        (folder / "state.pt").write_bytes(b"state")
        write_progress(folder, step=step, total=9, events_bytes=0, seconds={}, wall_seconds=1.0)

    assert read_progress(tmp_path) is None
    checkpoint_folder(tmp_path, "new").mkdir()
    assert read_progress(tmp_path) is None, "what is being written does not count"
    checkpoint_folder(tmp_path, "new").rmdir()
    write("old", 3)  # killed between the two renames
    write("new", 4)
    assert read_progress(tmp_path)["step"] == 3
    commit_checkpoint(tmp_path)
    assert read_progress(tmp_path)["step"] == 4
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint"]


def test_the_order_goes_on_without_reading_what_came_before():
    class Items(list):
        def __getitem__(self, place):
            read.append(place)
            return super().__getitem__(place)

    def batches():
        order = torch.Generator().manual_seed(4)
        items = [{"x": torch.tensor([float(n)])} for n in range(20)]
        tuned = compose("full").apply(torch.nn.Sequential(torch.nn.Linear(1, 2), torch.nn.Linear(2, 2)), device="cpu")
        collate = lambda chosen: [int(item["x"]) for item in chosen]
        return Batches(tuned.loader(Items(items), batch_size=3, collate=collate, generator=order), order)

    read = []
    once = batches()
    first = [next(once) for _ in range(10)]
    again = batches()
    read.clear()
    again.seek(once.position())
    assert read == []
    assert [next(again) for _ in range(8)] == [next(once) for _ in range(8)]
    assert len({tuple(batch) for batch in first}) == 10


@given(st.integers(1, 10**6))
def test_times_are_read(number):
    hours, minutes, seconds = number // 3600, number // 60 % 60, number % 60
    forms = {f"{number}", f"{number}s", f"{hours}:{minutes:02d}:{seconds:02d}"}
    assert {parse_duration(text) for text in forms} == {float(number)}
    assert parse_duration(f"{number}h") == 60 * parse_duration(f"{number}m") == 3600 * number


def test_the_limit_is_no_part_of_a_run():
    assert "deadline" not in {field.name for field in dataclasses.fields(RunSpec)}


@pytest.mark.parametrize(
    ("plan", "said"), [("freeze", ""), ("freeze+cache_features", "cache_features cannot be resumed")]
)
def test_what_starts_again_is_named_with_the_part_that_makes_it(tmp_path, plan, said):
    spec, limit = dataclasses.replace(SPEC, plan=plan), TimeLimit(60)
    with pytest.raises(TimeLimitReachedError):
        limit.stop(spec, [spec], 1, tmp_path)
    assert "to start from its beginning" in limit.message
    assert ("cannot be resumed" in limit.message) == bool(said)
    assert said in limit.message
