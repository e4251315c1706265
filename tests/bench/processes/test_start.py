"""A forked child is a fresh interpreter in all but the seconds; it leaves no trace, and nothing outlives its owner."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.processes import start as starting
from bench.processes.environment import child_environment, read_too_early
from bench.processes.start import SWITCH, fork_server, kill_group, start

PROGRAM = "tests.bench.processes.program"
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks are Linux's")


@pytest.fixture(params=["fork", "fresh"])
def method(request, monkeypatch, forks):
    """How children start."""
    monkeypatch.setenv(SWITCH, request.param)
    return request.param


def ask(tmp_path, *words, expect="fork", **variables):
    """Run the program; gives the child and what it printed."""
    with (tmp_path / "out").open("w+") as out:
        child = start(PROGRAM, words, child_environment(variables), output=out.fileno(), errors=out.fileno())
        assert child.start_method == expect
        child.wait(60)
        kill_group(child)
        out.seek(0)
        return child, out.read()


def test_a_fork_has_the_surroundings_of_a_fresh_interpreter(tmp_path, monkeypatch, forks):
    found = []
    given = {"TUNEMATRIX_TEST": "x", "TMPDIR": str(tmp_path), "CUDA_VISIBLE_DEVICES": "3", "RANK": "1"}
    monkeypatch.chdir(tmp_path)
    for method in ("fork", "fresh"):
        monkeypatch.setenv(SWITCH, method)
        _, told = ask(tmp_path, "surroundings", "a b", expect=method, **given)
        found.append(json.loads(told))
    fork, fresh = found
    assert fork == fresh
    assert fork["words"] == ["surroundings", "a b"]
    assert fork["scratch"] == fork["folder"] == str(tmp_path)
    assert (fork["leads"], fork["session"], fork["input"], fork["cuda"]) == (True, True, "", False)


@pytest.mark.parametrize("number", ["1", "2", None])
def test_threads_are_those_that_the_environment_gives(tmp_path, monkeypatch, forks, number):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    given = {} if number is None else {"OMP_NUM_THREADS": number}
    told = json.loads(ask(tmp_path, "surroundings", **given)[1])
    cores = len(os.sched_getaffinity(0))
    assert told["torch"] == int(number or cores)
    assert told["blas"] in ([], [int(number or cores)])


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("0", 0, ""), ("3", 3, ""), ("75", 75, ""), ("text", 1, "no such data\n"), ("kill", -signal.SIGKILL, ""),
        ("error", 1, "RuntimeError: the disk has gone\n"), ("abort", -signal.SIGABRT, ""),
    ],
)  # fmt: skip
def test_the_end_of_a_child_reaches_its_owner(tmp_path, method, how, status, words):
    child, told = ask(tmp_path, "end", how, expect=method)
    assert child.returncode == child.poll() == child.wait() == status
    assert not child.lost
    assert told.endswith(words)


def test_an_owner_may_ask_before_the_end(tmp_path, method):
    marker = tmp_path / "marker"
    child = start(PROGRAM, ["hang", marker], child_environment({}))
    assert child.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(0.05)
    wait_for(lambda: marker.exists() and marker.read_text())
    assert int(marker.read_text().split()[0]) == child.pid
    kill_group(child)
    assert child.returncode == -signal.SIGTERM
    assert not running(f"sleep 3600.{child.pid}")


def test_files_that_are_passed_on_stay_open(tmp_path, forks):
    reader, writer = os.pipe()
    with (tmp_path / "out").open("w") as out:
        child = start("tests.bench.processes.program", ["threads"], child_environment({}), output=out.fileno(),
                      inherited=[writer])  # fmt: skip
    os.close(writer)
    assert child.wait(60) == 0
    assert os.read(reader, 9) == b"", "and are closed when the child ends"
    os.close(reader)


def test_a_fork_is_of_a_process_with_one_thread(tmp_path, forks):
    assert {ask(tmp_path, "threads")[1] for _ in range(3)} == {"1\n"}


def test_two_forks_do_not_draw_the_same_random_numbers(tmp_path, forks):
    one, two = (ask(tmp_path, "random")[1] for _ in range(2))
    assert not set(one.split()) & set(two.split())


def test_what_one_run_breaks_the_next_one_does_not_see(tmp_path, forks):
    before = ask(tmp_path, "state")[1]
    assert ask(tmp_path, "damage")[0].returncode == 0
    assert ask(tmp_path, "state")[1] == before


def test_a_child_may_have_children_of_its_own(tmp_path, forks):
    assert ask(tmp_path, "loader")[1] == "4950\n"


def test_the_compiler_keeps_what_it_makes_where_a_run_says(tmp_path, forks):
    told = ask(tmp_path, "compiler", TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cold"))[1]
    assert told == f"{tmp_path / 'cold'}\n"


@pytest.mark.slow
@pytest.mark.parametrize(("touched", "reason"), [("", ""), ("touched", "an import touched the GPU")])
def test_where_a_gpu_is_nothing_may_touch_it_before_a_fork(tmp_path, own_server, touched, reason):
    with fork_server(["torch"]):
        told = ask(tmp_path, "with a gpu", touched, OMP_NUM_THREADS="1")[1]
    assert told == f"({reason!r}, [])\n", "and what would is left for the child"


@pytest.mark.parametrize(
    ("variable", "expect"),
    [
        ("PYTORCH_CUDA_ALLOC_CONF", "fresh"), ("LD_PRELOAD", "fresh"), ("HF_HUB_OFFLINE", "fresh"),
        ("GOMP_SPINCOUNT", "fresh"), ("MASTER_PORT", "fork"), ("TORCHINDUCTOR_CACHE_DIR", "fork"),
        ("TUNEMATRIX_CACHE", "fork"),
    ],
)  # fmt: skip
def test_what_imports_read_needs_an_interpreter_of_its_own(tmp_path, forks, variable, expect):
    ask(tmp_path, "end", "0", expect=expect, **{variable: "1" if variable != "LD_PRELOAD" else ""})


def test_a_variable_that_is_gone_counts_too():
    assert read_too_early({"HF_HOME": "/data", "RANK": "0"}, {}) == ["HF_HOME"]
    assert read_too_early({"HF_HOME": "/data"}, {"HF_HOME": "/data", "RANK": "1"}) == []


def test_an_unknown_way_to_start_is_one_line(monkeypatch):
    monkeypatch.setenv(SWITCH, "spawn")
    with pytest.raises(ValueError, match="TUNEMATRIX_START_METHOD=spawn: there is fork and fresh"):
        starting.may_fork()


def test_no_forks_where_they_are_not_safe(monkeypatch):
    monkeypatch.delenv(SWITCH, raising=False)
    assert starting.may_fork()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not starting.may_fork()


@pytest.fixture
def own_server(monkeypatch):
    """Room for a server that this test may break."""
    monkeypatch.setattr(starting, "_current", starting._Current())
    return starting._current


def test_where_an_import_starts_threads_runs_are_fresh_and_one_line_says_why(tmp_path, capfd, own_server):
    with fork_server(["tests.bench.processes.threaded"]):
        for _ in range(2):
            ask(tmp_path, "end", "0", expect="fresh")
    (line,) = capfd.readouterr().err.splitlines()
    assert "interpreter of its own" in line
    assert line.endswith("an import started threads (cleaner)") or "python" in line


def test_a_server_that_dies_takes_its_children_and_is_started_again(tmp_path, own_server):
    with fork_server([]):
        marker = tmp_path / "marker"
        child = start(PROGRAM, ["hang", marker], child_environment({}))
        wait_for(marker.exists)
        os.kill(own_server.server.pid, signal.SIGKILL)
        child.wait(10)
        assert child.lost
        assert child.returncode == -signal.SIGKILL
        wait_for(lambda: not is_alive(child.pid))
        kill_group(child)
        assert not running(f"sleep 3600.{child.pid}")
        first = own_server.server.pid
        ask(tmp_path, "end", "0")
        assert own_server.server.pid != first
    assert own_server.server is None


def test_a_server_inside_another_is_the_other(own_server):
    with fork_server([]):
        outer = own_server.server
        with fork_server(["json"]):
            assert own_server.server is outer
        assert outer.is_alive()
    assert not outer.is_alive()


OWNER = """
import sys, time
from bench.processes.environment import child_environment
from bench.processes.start import fork_server, start
with fork_server([]):
    child = start("tests.bench.processes.program", ["hang", sys.argv[1]], child_environment({}))
    time.sleep(3600)
"""


def test_nothing_outlives_an_owner_that_is_killed(root, tmp_path):
    marker = tmp_path / "marker"
    command = [sys.executable, "-c", OWNER, str(marker)]
    with subprocess.Popen(command, cwd=root, env=child_environment({})) as owner:
        wait_for(lambda: marker.exists() and marker.read_text())
        owner.kill()
    child, server = map(int, marker.read_text().split())
    wait_for(lambda: not (is_alive(child) or is_alive(server) or running(f"sleep 3600.{child}")))


def wait_for(condition, seconds=20):
    """Wait until something holds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def is_alive(pid):
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def running(words):
    """Command lines that have these words, this process and its servers left out."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout.splitlines()
    return [line for line in listed if words in line and "ps -eo" not in line]
