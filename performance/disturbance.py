"""What a run records of its neighbours: alone, beside a busy loop, beside a burst of two, beside another sweep.

python performance/disturbance.py [--strategies full,lora] [--max-steps 120] [--threads 2] [--repeats 2]

Every row is a run of its own, in turns; figures are those of set-up, warm-up and training. The limits of
`bench/records/disturbance.py` lie between the rows "nothing" and the others. Nothing else may run meanwhile.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.commands.arguments import make_parser
from bench.commands.cli import make_request
from bench.processes.environment import child_environment
from bench.processes.scratch import scratch_folder
from bench.records.spec import RunSpec
from bench.sweep.child_processes import prepare
from bench.sweep.launcher import launch
from bench.sweep.matrix import build_matrix
from bench.sweep.request import LaunchOptions
from strategies import compose

ROOT = Path(__file__).resolve().parent.parent
BUSY = [sys.executable, "-c", "while True: pass"]
BURST_SECONDS = 2.0


class Neighbours:
    """Processes beside a run; `event` is told what the run does."""

    def __init__(self, kind: str, scratch: Path) -> None:
        self.kind, self.scratch = kind, scratch
        self.processes: list[subprocess.Popen[bytes]] = []
        self.burst: threading.Timer | None = None

    def begin(self) -> None:
        if self.kind == "a busy loop":
            self.processes.append(subprocess.Popen(BUSY))
        elif self.kind == "another sweep":
            command = [sys.executable, "run_matrix.py", "--strategies", "full", "--seeds", "7,8,9", "--out"]
            other = subprocess.Popen([*command, str(self.scratch / "other")], cwd=ROOT, stdout=subprocess.DEVNULL)
            self.processes.append(other)
            while not list((self.scratch / "other").glob("runs/*/events.jsonl")):
                time.sleep(0.2)

    def event(self, event: Mapping[str, Any]) -> None:
        if self.kind == "a burst of two" and event == {"event": "section", "name": "train"} and not self.burst:
            self.processes += [subprocess.Popen(BUSY), subprocess.Popen(BUSY)]
            self.burst = threading.Timer(BURST_SECONDS, self.end)
            self.burst.start()

    def end(self) -> None:
        if self.burst:
            self.burst.cancel()
        for process in self.processes:
            process.terminate()
            process.wait()
        self.processes = []


@contextmanager
def neighbours(kind: str, scratch: Path) -> Iterator[Neighbours]:
    """Neighbours for the time of a run."""
    found = Neighbours(kind, scratch)
    found.begin()
    try:
        yield found
    finally:
        found.end()


def specifications(strategies: str, max_steps: int) -> list[RunSpec]:
    """One run of each recipe on the embedded data."""
    words = ["--strategies", strategies, "--no-baseline", "--max-steps", str(max_steps), "--device", "cpu"]
    request = make_request(make_parser().parse_args(words), words)
    with scratch_folder() as scratch:
        specs = build_matrix(request.plans, prepare(request, request.plans, scratch), request.training)
    return [spec for spec in specs if spec.kind != "control"]


def measure(spec: RunSpec, kind: str, threads: int) -> dict[str, Any]:
    """The row of a run beside these neighbours."""
    with tempfile.TemporaryDirectory(prefix="tunematrix-") as scratch, neighbours(kind, Path(scratch)) as beside:
        environ = child_environment({**compose(spec.plan).environ(), "OMP_NUM_THREADS": str(threads)})
        options = LaunchOptions(sweep="disturbance", columns={})
        record = launch(spec, Path(scratch) / "run", options, environ=environ, watch=beside.event)
        assert record is not None
        return dict(record["row"])


KINDS = ("nothing", "a busy loop", "a burst of two", "another sweep")
SHOWN: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "TTT, s": lambda row: f"{row['ttt_seconds']:.1f}",
    "waited": lambda row: f"{row['cpu_wait_share']:.3f}",
    "others": lambda row: f"{row['other_cpu_share']:.3f}",
    "pressure": lambda row: f"{row['cpu_pressure_share']:.2f}",
    "switches/s": lambda row: f"{row['involuntary_switches'] / row['ttt_seconds']:.0f}",
    "CPUs used": lambda row: f"{row['cpu_seconds'] / row['ttt_seconds']:.2f}",
    "disturbed": lambda row: row.get("disturbed", ""),
}


def main(strategies: str, max_steps: int, threads: int, repeats: int) -> None:
    print(f"| recipe | threads | beside | {' | '.join(SHOWN)} |")
    print(f"|---|---:|---|{'---:|' * (len(SHOWN) - 1)}---|", flush=True)
    for _ in range(repeats):
        for spec in specifications(strategies, max_steps):
            for kind in KINDS:
                row = measure(spec, kind, threads)
                cells = [spec.strategy, str(threads), kind, *(cell(row) for cell in SHOWN.values())]
                print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strategies", default="full,lora,qlora8,compile")
    parser.add_argument("--max-steps", type=int, default=120)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--repeats", type=int, default=2)
    main(**vars(parser.parse_args()))
