"""A forked child is a fresh interpreter in all but the seconds; it leaves no trace, and nothing outlives its owner."""

import json
import os
import select
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
    assert (fork["leads"], fork["input"], fork["cuda"]) == (True, "", False)


@pytest.mark.parametrize("number", ["1", "2"])
def test_threads_are_those_that_the_environment_gives(tmp_path, forks, number):
    told = json.loads(ask(tmp_path, "surroundings", OMP_NUM_THREADS=number)[1])
    assert told["torch"] == int(number)
    assert told["blas"] in ([], [int(number)])


@pytest.mark.parametrize(("variable", "value", "threads"), [
    ("OMP_NUM_THREADS", "2,1", 2), ("GOTO_NUM_THREADS", "2", 2), ("OPENBLAS_NUM_THREADS", "auto", None),
])  # fmt: skip
def test_numbers_of_threads_that_are_no_numbers(tmp_path, forks, variable, value, threads):
    environment = child_environment({variable: value})
    fresh = variable == "OMP_NUM_THREADS" or environment.get("GOTO_NUM_THREADS")
    told = json.loads(ask(tmp_path, "surroundings", expect="fresh" if fresh else "fork", **{variable: value})[1])
    assert told["blas"] in ([], [threads or int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))])


@pytest.mark.parametrize(
    ("how", "status", "words"),
    [
        ("0", 0, ""), ("3", 3, ""), ("75", 75, ""), ("text", 1, "no such data\n"), ("kill", -signal.SIGKILL, ""),
        ("error", 1, "RuntimeError: the disk has gone\n"), ("abort", -signal.SIGABRT, ""), ("object", 1, "no data\n"),
        ("interrupt", -signal.SIGINT, ""),
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


def test_files_that_are_passed_on_are_there(tmp_path, forks):
    reader, writer = os.pipe()
    child = start(PROGRAM, ["hang", tmp_path / "marker"], child_environment({}), inherited=[writer])
    ask(tmp_path, "end", "0")
    os.close(writer)
    assert not select.select([reader], [], [], 0.1)[0], "a child has it open"
    kill_group(child)
    assert os.read(reader, 9) == b"", "and nobody else: neither the server nor another child"
    os.close(reader)


def test_children_beside_each_other_do_not_touch_each_other(tmp_path, forks):
    others = [start(PROGRAM, ["hang", tmp_path / str(i)], child_environment({})) for i in range(3)]
    ends = [ask(tmp_path, "end", how)[0].returncode for how in ("object", "error", "kill", "3")]
    assert ends == [1, 1, -signal.SIGKILL, 3]
    assert [child.poll() for child in others] == [None] * 3
    for child in others:
        kill_group(child)
    assert [child.returncode for child in others] == [-signal.SIGTERM] * 3


def test_a_child_is_killed_at_any_moment_of_its_start(tmp_path, forks):
    for _ in range(20):
        child, started = start(PROGRAM, ["hang", tmp_path / "marker"], child_environment({})), time.monotonic()
        kill_group(child)
        assert child.returncode == -signal.SIGTERM
        assert time.monotonic() - started < 3


def test_many_children_leave_no_file_open(tmp_path, forks):
    def counts():
        return [len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in (os.getpid(), starting._current.server.pid)]

    def grown():
        return [now - then for now, then in zip(counts(), before, strict=True)]

    before, files = counts(), ask(tmp_path, "files")[1]
    for _ in range(20):
        ask(tmp_path, "end", "0")
    deadline = time.monotonic() + 10  # the server takes a moment to close what was the last child's
    while max(grown()) > 0 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert max(grown()) <= 0, "fewer are there where what other tests left open was collected meanwhile"
    assert ask(tmp_path, "files")[1] == files == "['0', '1', '2', '3']\n", "the fourth lists them"


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
    told = ask(tmp_path, "constants", TMPDIR=str(tmp_path))[1].splitlines()[-1]
    assert told.startswith(f"([], '{tmp_path}/torchinductor"), "and nothing of an earlier run's is found again"


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
    assert "an import started threads (" in line


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


@pytest.mark.parametrize("how", ["close", "kill"])
def test_a_server_that_imports_still_ends_with_its_owner(root, own_server, how):
    code = "import sys; from bench.processes.start import ForkServer; "
    code += "print(ForkServer(['tests.bench.processes.slow']).pid, flush=True); sys.stdin.read()"
    if how == "close":
        with fork_server(["tests.bench.processes.slow"]):
            server, started = own_server.server.pid, time.monotonic()
        assert time.monotonic() - started < 2
    else:
        command = [sys.executable, "-c", code]
        with subprocess.Popen(
            command, cwd=root, env=child_environment({}), stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as owner:
            server = int(owner.stdout.readline())
            owner.kill()
    wait_for(lambda: not is_alive(server), seconds=5)


def test_what_cannot_be_sent_is_no_reason_to_wait(tmp_path, capfd, own_server):
    with fork_server([]):
        ask(tmp_path, "end", "0")
        ask(tmp_path, "end", "0", expect="fresh", TUNEMATRIX_TEST="x" * 90_000, TUNEMATRIX_MORE="x" * 120_000,
            TUNEMATRIX_REST="x" * 120_000)  # fmt: skip
    assert "Message too long" in capfd.readouterr().err


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
