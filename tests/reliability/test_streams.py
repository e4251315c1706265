"""Terminals close and readers leave: a sweep goes on, or ends once and leaves nothing behind."""

import csv
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.bench.commands.test_cli import ended_anyway, family, holders, wait_for

pytestmark = pytest.mark.slow
FAULTY = "tests.bench.faulty_task:FaultyTask"


def sweep(root, out, fault="", **options):
    command = [sys.executable, str(root / "run_matrix.py"), "--task", f"{FAULTY}(fault={fault!r})", "--no-baseline"]
    return subprocess.Popen([*command, "--strategies", "freeze", "--out", str(out)], cwd=root, **options)


def statuses(out):
    with (out / "runs.csv").open() as file:
        return [row["status"] for row in csv.DictReader(file)]


def test_a_reader_that_leaves_and_a_closed_terminal_under_nohup_do_not_end_it(root, tmp_path):
    """`nohup python run_matrix.py … | head -1`."""
    ignored = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    process = sweep(root, tmp_path / "out", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **ignored)
    with ended_anyway(process):
        assert process.stdout.readline().startswith("Looking at the data")
        process.stdout.close()
        process.send_signal(signal.SIGHUP)
        assert process.wait(90) == 0
    assert statuses(tmp_path / "out") == ["ok"]
    assert (tmp_path / "out" / "summary.md").exists(), "what is drawn in the end has no reader, either"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_asked_again_and_again_it_ends_once_and_whole(root, tmp_path, number):
    out = tmp_path / "out"
    process = sweep(root, out, "hang", stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with ended_anyway(process):
        wait_for(lambda: [p for p in out.glob("runs/*/events.jsonl") if '"name": "train"' in p.read_text()])
        started = family(process.pid)
        for _ in range(5):
            process.send_signal(number)
        said = process.communicate(timeout=90)[1]
    assert (process.returncode, "goes on from there" in said, "Traceback" in said) == (130, True, False)
    assert statuses(out) == []
    assert not holders(out)
    assert not started & family(1, everyone=True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False, capture_output=True
    ).returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_full_disk_is_told_with_its_place_and_the_same_command_goes_on(root, run_matrix, small_disk):
    out = small_disk / "out"
    words = ["--task", f"{FAULTY}(fault='flood')", "--strategies", "freeze,bitfit", "--no-baseline", "--out", out]
    done = run_matrix(*words)
    assert done.returncode == 2
    assert re.search(rf"{out}/\S+: No space left on device; make room there and give the same command", done.stderr)
    assert "Traceback" not in done.stderr
    for log in out.glob("runs/*/log.txt"):
        log.unlink()
    done = run_matrix(*words[:1], f"{FAULTY}(fault='')", *words[2:])
    assert done.returncode == 0, done.stderr
    assert statuses(out).count("ok") == 2


def test_a_list_without_a_reader_is_no_error(root):
    command = f"{sys.executable} run_matrix.py list | head -1"
    done = subprocess.run(command, shell=True, cwd=root, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert os.linesep in done.stdout
