"""The command line as people meet it: frozen, quick, and one clear line for every mistake."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from bench.commands.arguments import make_parser, make_plan_parser
from bench.commands.cli import COMMANDS, make_request
from bench.processes.start import SWITCH

FAULTY = "tests.bench.faulty_task:FaultyTask"


def test_the_command_line_is_frozen(root):
    page = (root / "docs" / "command-line.md").read_text()
    for parser in (make_parser(), make_plan_parser(), *(make() for make, _ in COMMANDS.values())):
        assert parser.format_help() in page, "the page and the parser differ: `make docs` writes the page"


@pytest.mark.parametrize(
    ("arguments", "status", "seconds"),
    [(["--help"], 0, 0.6), (["list"], 0, 2.5), (["--strategies", "lorra"], 2, 2.5)],
    ids=["help", "list", "mistake"],
)
def test_what_trains_nothing_answers_at_once(root, arguments, status, seconds):
    """A process each: help takes 0.3 s on a quiet machine, torch alone would take 2 s; a busy one gets three tries."""
    command = [sys.executable, str(root / "run_matrix.py"), *arguments]
    for _ in range(3):
        started = time.perf_counter()
        done = subprocess.run(command, capture_output=True, check=False)
        taken = time.perf_counter() - started
        assert (done.returncode, done.stderr.count(b"\n")) == (status, int(status > 0))
        if taken < seconds:
            return
    raise AssertionError(f"{taken:.1f} s, {seconds} at most")


def test_list_teaches(run_matrix):
    done = run_matrix("list")
    assert done.returncode == 0
    for word in ("lora", "r=8", "qlora", "nf4+lora", "default"):
        assert word in done.stdout


BAD = [
    (["--strategies", "lorra"], ["unknown strategy 'lorra'", "lora"]),
    (["--strategies", "lora(rank=4)"], ["no option 'rank'", "r, "]),
    (["--strategies", "lora(r='x')"], ["r='x'", "int"]),
    (["--strategies", "lora(r=0)"], ["lora", "r"]),
    (["--strategies", "lora(r=__import__('os'))"], ["lora(r=__import__('os'))"]),
    (["--strategies", " "], ["--strategies is empty"]),
    (["--strategies", "lora,lora"], ["same plan"]),
    (["--strategies", "qlora,lora+nf4"], ["same plan", "'qlora'", "'lora+nf4'"]),
    (["--strategies", "nf4"], ["nothing to run", "frozen base", "nf4+lora"]),
    (["--strategies", "lora", "--preset", "default"], ["--strategies and --preset"]),
    (["--preset", "nope"], ["nope", "default"]),
    (["--strategies", "lora,amp", "--lr", "1e-3"], ["--same-lr"]),
    (["--strategies", "lora", "--lr", "-1"], ["--lr", "positive"]),
    (["--seeds", "1,1"], ["--seeds"]),
    (["--fraction", "2"], ["--fraction"]),
    (["--tune", "1"], ["--tune", "nothing to choose"]),
    (["--tune", "3", "--strategies", "lora", "--lr", "1e-3"], ["--tune", "leave out --lr"]),
    (["--time-limit", "soon"], ["11.5h"]),
    (["--devices", "0,1"], ["--devices: not yet"]),
    (["--executor", "slurm"], ["--executor: not yet"]),
    (["compare", "a"], ["required: NEW"]),
    (["compare", "a", "b"], ["compare: a cannot be read"]),
    (["merge", "a"], ["required: --out"]),
    (["merge", "a", "--out", "b"], ["merge a: no results folder (no sweep.json in it)"]),
    (["export", "0123", "--out", "b", "--in", "a"], ["export 0123: no such run or recipe in a"]),
    (["export", "0123", "--out", "b"], ["export 0123: no such run or recipe in the 0 folders under results/"]),
    (["repro", "0123"], ["repro: not yet"]),
    (["rum"], ["rum"]),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(a) for a, _ in BAD])
def test_a_mistake_gets_one_clear_line(run_matrix, tmp_path, arguments, words):
    done = run_matrix(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    pointer = [line for line in done.stderr.splitlines() if set(line) <= set(" ^")]
    assert len(done.stderr.splitlines()) - 2 * len(pointer) == 1, (
        "one line, and where it helps a pointer into the words"
    )
    for word in words:
        assert word in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_out_must_be_ours_and_writable(run_matrix, tmp_path):
    foreign = tmp_path / "thesis"
    foreign.mkdir()
    (foreign / "chapter.tex").write_text("mine")
    done = run_matrix("--strategies", "lora", "--out", foreign)
    assert (done.returncode, "holds files that no sweep wrote" in done.stderr) == (2, True)
    done = run_matrix("--strategies", "lora", "--out", foreign / "chapter.tex")
    assert (done.returncode, "is a file" in done.stderr) == (2, True)
    done = run_matrix("--strategies", "lora", "--out", "/proc/results")
    assert (done.returncode, "cannot be written" in done.stderr) == (2, True)
    assert [path.name for path in foreign.iterdir()] == ["chapter.tex"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "words"),
    [
        ("nowhere.task:Task", ["no module 'nowhere.task'"]),
        ("tests.bench.faulty_task", ["package.module:Class"]),
        ("tests.bench.faulty_task:Faulty", ["no task class 'Faulty'", "FaultyTask"]),
        (f"{FAULTY}(speed=3)", ["no option speed", "fault, at_step, items"]),
        (f"{FAULTY}(fault='prepare')", ["lines.json: line 3: not a line; give another folder"]),
    ],
)
def test_a_task_that_cannot_be_used(run_matrix, tmp_path, task, words):
    done = run_matrix("--strategies", "lora", "--task", task, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words), done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_field_the_task_does_not_have(run_matrix, tmp_path):
    done = run_matrix("--task", FAULTY, "--data", "x", "--out", tmp_path / "out")
    assert (done.returncode, "no option data; it has: fault, at_step, items" in done.stderr) == (2, True)


@pytest.mark.slow
def test_a_dry_run_shows_refusals_and_writes_nothing(run_matrix, tmp_path):
    done = run_matrix("--task", FAULTY, "--strategies", "amp,nf4", "--dry-run", "--out", tmp_path / "out")
    assert done.returncode == 0
    lines = {line.split()[1]: line for line in done.stdout.splitlines() if line[:1].isalnum()}
    assert "to run" in lines["full"]
    assert "refused" in lines["nf4"]
    assert "frozen base" in lines["nf4"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_sweep_with_every_kind_of_ending(run_matrix, tmp_path):
    out = tmp_path / "out"
    arguments = ["--task", f"{FAULTY}(fault='nan')", "--strategies", "freeze,nf4", "--out", out, "--no-baseline"]
    done = run_matrix(*arguments)
    assert done.returncode == 0, done.stderr
    with (out / "runs.csv").open() as file:
        assert sorted(row["status"] for row in csv.DictReader(file)) == ["diverged", "refused"]
    done = run_matrix(*arguments, "--strict")
    assert done.returncode == 1
    assert "1 of 2 runs are finished already" in done.stdout
    record = next(out.glob("runs/*/record.json"))
    record.write_text(record.read_text()[:40])
    done = run_matrix(*arguments)
    assert (done.returncode, f"{record}: not readable as JSON" in done.stdout) == (0, True)
    assert json.loads(record.read_text())["row"]["status"] in {"diverged", "refused"}, "it ran again"
    assert len((out / "damaged" / record.parent.name / "record.json").read_text()) == 40


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_sweep_ends_its_run_keeps_results_and_goes_on(root, run_matrix, tmp_path, number):
    out = tmp_path / "out"
    task = f"{FAULTY}(fault='hang', at_step=30)"
    command = [sys.executable, str(root / "run_matrix.py"), "--task", task, "--strategies", "freeze", "--out", str(out)]
    with ended_anyway(
        subprocess.Popen([*command, "--no-baseline"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    ) as sweep:
        events = wait_for(lambda: [p for p in out.glob("runs/*/events.jsonl") if '"name": "train"' in p.read_text()])
        second = run_matrix(*command[2:])
        assert (second.returncode, "another sweep is writing there" in second.stderr) == (2, True)
        sweep.send_signal(number)
        _, errors = sweep.communicate(timeout=90)
        assert (sweep.returncode, "goes on from there" in errors) == (130, True)
        assert (out / "runs.csv").read_text().count("\n") == 1, "no record of the run that was interrupted"
        assert not list(events[0].parent.glob("record.json"))
        assert not holders(out), "the run was ended with its sweep"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "fresh"])
def test_a_sweep_that_is_killed_leaves_no_process_and_goes_on(root, run_matrix, tmp_path, method):
    out = tmp_path / "out"
    command = [sys.executable, str(root / "run_matrix.py"), "--task", f"{FAULTY}(fault='hang')", "--no-baseline"]
    command += ["--strategies", "freeze", "--out", str(out)]
    environment = {**os.environ, SWITCH: method}
    with ended_anyway(subprocess.Popen(command, stdout=subprocess.DEVNULL, env=environment)) as sweep:
        wait_for(lambda: [p for p in out.glob("runs/*/events.jsonl") if '"name": "train"' in p.read_text()])
        started = family(sweep.pid)
        assert len(started) >= 2, "the run, and what it has started itself"
        sweep.kill()
        sweep.wait()
    wait_for(lambda: not holders(out) and not started & family(1, everyone=True))
    done = run_matrix(*command[2:], "--timeout", 3)
    assert done.returncode == 0, done.stderr
    with (out / "runs.csv").open() as file:
        assert [row["status"] for row in csv.DictReader(file)] == ["timeout"]


MEMORY_GROUPS = Path("/sys/fs/cgroup/memory")


@pytest.mark.slow
@pytest.mark.skipif(not os.access(MEMORY_GROUPS, os.W_OK), reason="needs the right to limit a process's memory")
def test_a_run_that_the_kernel_ends_for_memory_is_a_row_and_costs_no_other(root, tmp_path):
    group = MEMORY_GROUPS / f"tunematrix-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(1500 << 20))
        script = f'echo $$ > {group}/cgroup.procs; exec "$@"'
        words = ["--task", f"{FAULTY}(fault='hog')", "--strategies", "freeze,bitfit", "--no-baseline"]
        command = ["sh", "-c", script, "sh", sys.executable, str(root / "run_matrix.py"), *words]
        done = subprocess.run(
            [*command, "--out", str(tmp_path / "out")], capture_output=True, text=True, cwd=root, check=False
        )
    finally:
        group.rmdir()
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "runs.csv").open() as file:
        rows = [(row["status"], row["reason"], row["start_method"]) for row in csv.DictReader(file)]
    assert rows == [("oom", "killed by the kernel: the machine's memory ran out", "fork")] * 2


WINDOWS = """
import os, signal, sys
import psutil  # which has a part of its own for Windows
for name in ("SIGKILL", "SIGHUP", "SIGCHLD"):
    delattr(signal, name)
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
from bench.commands.cli import main
os.name = "nt"
sys.exit(main([]))
"""


def test_on_windows_one_line_says_where_it_runs(root):
    done = subprocess.run([sys.executable, "-c", WINDOWS], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "WSL" in line


def holders(folder):
    """Processes that have a file of this folder open."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with suppress(OSError):
            if str(link.readlink()).startswith(str(folder)):
                found.add(int(link.parts[2]))
    return found


def family(pid, *, everyone=False):
    """Processes below this one; or all that are there."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True).stdout
    rows = [line.split() for line in listed.splitlines()]
    parents = {int(child): int(parent) for child, parent, state in rows if not state.startswith("Z")}
    if everyone:
        return set(parents)
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


@pytest.mark.slow
def test_while_figures_are_drawn_an_interruption_is_one_line_too(root, tmp_path):
    """As from a terminal, where Ctrl-C reaches the sweep and what draws its figures."""
    command = [sys.executable, "-u", str(root / "run_matrix.py"), "--task", f"{FAULTY}(fault='nan')"]
    command += ["--strategies", "freeze", "--no-baseline", "--out", str(tmp_path / "out")]
    with ended_anyway(
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    ) as sweep:
        wait_for(lambda: "-m report all" in drawing(sweep.pid))
        os.killpg(sweep.pid, signal.SIGINT)
        _, errors = sweep.communicate(timeout=60)
    assert sweep.returncode == 130
    assert "goes on from there" in errors
    assert "run_matrix.py" not in errors.partition("Traceback")[2], "nothing of the sweep's own insides"


def drawing(pid):
    """The command lines of a process's children."""
    return subprocess.run(["ps", "--ppid", str(pid), "-o", "args="], capture_output=True, text=True, check=False).stdout


@contextmanager
def ended_anyway(process):
    """A test that fails leaves nothing running: a hanging sweep slows every test after it."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=60)


def wait_for(condition, seconds=180):
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return found


def test_options_reach_the_request(tmp_path):
    line = [
        "--strategies",
        "lora,amp",
        "--data",
        str(tmp_path),
        "--fraction",
        "0.25",
        "--seeds",
        "0,2",
        "--epochs",
        "1.5",
    ]
    request = make_request(make_parser().parse_args(line), line)
    assert request.overrides == {"data": str(tmp_path), "fraction": 0.25}
    assert (request.training.seeds, request.training.epochs, request.training.lr) == ([0, 2], 1.5, None)
    assert [named.text for named in request.plans] == ["lora", "amp"]
    assert request.out.parts == ("results", "local", tmp_path.name)
