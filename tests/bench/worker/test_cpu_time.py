"""Who had the CPUs while a section ran: counted for real, and read from what a kernel writes."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bench.records.disturbance import disturbance_columns
from bench.records.events import aggregate_events
from bench.worker import cpu_time
from bench.worker.cpu_time import CpuTimes

counted = pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="this kernel counts no waiting")
BURN = "import time\nwhile time.process_time() < 0.3: pass"
# One CPU for the run and for another process: what a machine full of sweeps is like.
CROWDED = """\
import os, sys, time
from pathlib import Path
from bench.records.events import EventWriter
from bench.worker.cpu_time import CpuTimes
os.sched_setaffinity(0, {int(sys.argv[1])})
before = CpuTimes()
while time.perf_counter() < before.clock + 1.5:
    pass
EventWriter(Path(sys.argv[2]))("section_end", name="train", seconds=1.5, **CpuTimes().since(before))
"""


@pytest.mark.slow
@counted
def test_a_run_beside_another_process_is_marked(root, tmp_path):
    """Counters, events, their folding and the mark, with a neighbour who never sleeps on the same CPU."""
    cpu, log = min(os.sched_getaffinity(0)), tmp_path / "events.jsonl"
    neighbour = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", neighbour]) as busy:
        try:
            command = [sys.executable, "-c", CROWDED, str(cpu), str(log)]
            subprocess.run(command, check=True, cwd=root, env={**os.environ, "PYTHONPATH": str(root)}, timeout=120)
        finally:
            busy.kill()
    result = aggregate_events(map(json.loads, log.read_text().splitlines()))
    found = disturbance_columns(result.sections, {})
    assert result.sections["train"]["cpu_wait_seconds"] > 0.3
    assert found["cpu_wait_share"] > 0.25
    assert found["other_cpu_share"] > 0.25
    assert found["cpu_seconds"] < 1.2
    assert found["involuntary_switches"] > 0
    assert found["disturbed"].startswith("others used ")


@counted
def test_what_a_run_started_is_its_own():
    """Children that ended and one that has not: compilers, say."""
    before = CpuTimes()
    for _ in range(2):
        subprocess.run([sys.executable, "-c", BURN], check=True)
    with subprocess.Popen([sys.executable, "-c", f"{BURN}\ntime.sleep(60)"]) as child:
        while cpu_time.tree_seconds(str(child.pid)) < 0.2:
            time.sleep(0.02)
        spent = CpuTimes().since(before)
        child.kill()
    assert spent["cpu_seconds"] >= 0.75


def proc(monkeypatch, folder, **files):
    """A /proc of these files; in their names a double underscore stands for a slash."""
    for name, text in files.items():
        path = folder / "proc" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setattr(cpu_time, "Path", lambda path: folder / path.lstrip("/"))


def test_where_the_system_does_not_tell_nothing_is_zero(monkeypatch, tmp_path):
    proc(monkeypatch, tmp_path)
    assert set(CpuTimes().since(CpuTimes())) == {"cpu_seconds", "involuntary_switches"}


@pytest.mark.parametrize("text", ["", "cpu0", "cpu0 a b c d e f g h\n", "intr\n"])
def test_a_file_of_another_form_is_none_at_all(monkeypatch, tmp_path, text):
    proc(monkeypatch, tmp_path, stat=text, pressure__cpu=text, self__task__1__schedstat=text)
    assert cpu_time.busy_seconds({0}) is None
    assert cpu_time.pressure_seconds() is None
    assert cpu_time.thread_waits() == {}


def test_busy_is_all_but_idleness_on_the_cpus_one_may_use(monkeypatch, tmp_path):
    #           user nice system idle iowait irq softirq steal guest guest_nice
    lines = ["cpu  1 1 1 1 1 1 1 1 1 1", "cpu0 100 20 30 999 999 1 2 7 50 5", "cpu1 9 9 9 9 9 9 9 9 9 9", "intr 3"]
    pressure = "some avg10=1.00 avg60=0.50 avg300=0.10 total=2500000\nfull avg10=0 avg60=0 avg300=0 total=9\n"
    proc(monkeypatch, tmp_path, stat="\n".join(lines), pressure__cpu=pressure, self__task__7__schedstat="1 2000000 3\n")
    assert cpu_time.busy_seconds({0}) == pytest.approx(160 / os.sysconf("SC_CLK_TCK")), "stolen time is the host's"
    assert cpu_time.busy_seconds({5}) is None
    assert cpu_time.pressure_seconds() == 2.5
    assert cpu_time.thread_waits() == {"7": 0.002}


def test_a_thread_that_began_meanwhile_counts_whole_and_one_that_ended_not_at_all():
    before = CpuTimes(cpus={0, 1}, own=1.0, busy=10.0, pressure=None, waits={"1": 2.0, "2": 5.0}, clock=0.0, switches=3)
    after = CpuTimes(cpus={0, 1}, own=2.5, busy=11.0, pressure=4.0, waits={"1": 2.5, "3": 0.25}, clock=2.0, switches=8)
    assert after.since(before) == {
        "cpu_seconds": 1.5, "involuntary_switches": 5, "other_cpu_seconds": 0.0, "available_cpu_seconds": 4.0,
        "cpu_wait_seconds": 0.75,
    }  # fmt: skip
