"""One sweep at a time in a folder: who is told, who takes over, and what an interrupted one leaves."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import psutil
import pytest

from bench.processes.environment import child_environment
from bench.records.folder_lock import LOCK_FILE, FolderInUseError, held
from bench.records.results_folder import InputError, check_output_folder, lock_folder

# Holds a folder and forks a child that keeps the lock open and heeds no signal, as a daemon of a task may.
HOLDER = """
import os, signal, sys, time
from pathlib import Path
from bench.records.folder_lock import held
with held(Path(sys.argv[1])):
    if os.fork() == 0:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        print("left", os.getpid(), flush=True)
        time.sleep(600)
    time.sleep(600)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder, and the number of the one that it left."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_environment({}))
    left = int(process.stdout.readline().split()[1])
    yield process, left
    for number in (process.pid, left):
        if psutil.pid_exists(number):
            os.kill(number, signal.SIGKILL)
    process.wait()
    process.stdout.close()


def test_the_second_is_told_who_and_since_when(holder, tmp_path):
    with pytest.raises(InputError) as told, lock_folder(tmp_path, []):
        pass
    since = json.loads((tmp_path / LOCK_FILE).read_text())["since"]
    assert f"another sweep is writing there (process {holder[0].pid} on {socket.gethostname()}, since {since})" in str(
        told.value
    )
    assert psutil.pid_exists(holder[1])


def test_what_is_left_of_a_dead_sweep_is_ended(holder, tmp_path):
    process, left = holder
    process.kill()
    process.wait()
    assert psutil.pid_exists(left)
    started = time.monotonic()
    with held(tmp_path):
        assert json.loads((tmp_path / LOCK_FILE).read_text())["pid"] == os.getpid()
        assert not psutil.pid_exists(left) or psutil.Process(left).status() == psutil.STATUS_ZOMBIE
    assert time.monotonic() - started < 4
    assert (tmp_path / LOCK_FILE).read_text() == ""


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", '{"pid": "1"}', '{"pid": 4194304, "host": "elsewhere", "since": "", "born": 1.0}'],
)
def test_a_lock_that_is_held_and_does_not_say_by_whom_stays(holder, tmp_path, content):
    """An unreadable owner, or one on another machine that shares the folder, is not taken for dead."""
    (tmp_path / LOCK_FILE).write_text(content)
    with pytest.raises(FolderInUseError), held(tmp_path):
        pass
    assert psutil.pid_exists(holder[1])
    assert holder[0].poll() is None


def test_what_an_interrupted_start_leaves_is_no_foreign_file_and_goes(tmp_path):
    (tmp_path / LOCK_FILE).write_text("{")
    (tmp_path / ".sweep.json.x8_k2jq4").write_text("{")
    check_output_folder(tmp_path)
    with lock_folder(tmp_path, ["run"]):
        assert sorted(path.name for path in tmp_path.iterdir()) == [LOCK_FILE, "sweep.json"]
    (tmp_path / "chapter.tex").write_text("mine")
    check_output_folder(tmp_path)
    (tmp_path / "sweep.json").unlink()
    with pytest.raises(InputError, match="holds files that no sweep wrote"):
        check_output_folder(tmp_path)


def test_half_written_files_go_and_others_stay(tmp_path):
    run = tmp_path / "runs" / ("a" * 12)
    (tmp_path / "runs" / f".{run.name}-q1w2e3r4" / "run").mkdir(parents=True)
    run.mkdir()
    gone = [tmp_path / ".runs.csv.ab12_x9z", tmp_path / ".predictions.parquet.77", run / ".record.json.zz_9zz_9"]
    kept = [
        tmp_path / ".gitignore",
        tmp_path / ".notes.json.bak",
        tmp_path / "notes.md",
        run / "log.txt",
        tmp_path / ".runs.csv",
        run / ".hidden",
    ]
    for path in (*gone, *kept):
        path.write_text("x")
    with lock_folder(tmp_path, []):
        assert not any(path.exists() for path in gone)
        assert all(path.exists() for path in kept)
        assert [path.name for path in (tmp_path / "runs").iterdir()] == [run.name]
