"""Seconds and memory of reading VQA v2 at its full size: 443,757 + 214,354 questions in the official files.

python performance/full_size.py [--quick] [--data DIR]

A made-up data set of that size is written first, or DIR is taken. Then fresh processes read both parts, choose a
quarter of the pictures and build the vocabulary: without an index, and with the one that the first left behind.
Another prepares the task to its first batch. Memory is the most that a process held (peak RSS, so on Linux only).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from full_size_data import write_full_size
from measuring import save, show

ROOT = Path(__file__).resolve().parent.parent
MEMORY = """
from pathlib import Path
def memory(kind):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(kind))
"""
READING = """
import json, sys, time
from vqa_model.data.answers import build_vocabulary
from vqa_model.data.official_files import read_part
folder, start, seconds = Path(sys.argv[1]), time.perf_counter(), {}
def lap(name):
    seconds[name] = time.perf_counter() - start - sum(seconds.values())
train, val = read_part(folder, "train"), read_part(folder, "val")
lap("read both parts")
chosen = train.choose(0.25, 0)
questions = train.questions.take(train.questions.on_images(chosen))
lap("choose a quarter of the pictures")
answers = build_vocabulary(questions, min_count=9, max_answers=3129)
lap("build the vocabulary")
facts = {"pictures": len(chosen), "questions": len(questions), "evaluated": len(val.questions), "answers": len(answers)}
peak = memory("VmHWM")
print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak, **facts}))
"""
LOADING = """
import json, sys, time
from vqa_model.task import VQATask
imported, start = memory("VmRSS"), time.perf_counter()
task = VQATask(data=sys.argv[1], fraction=0.25, min_count=9)
items = [task.train_set()[place] for place in range(64)]
task.collate(items), task.tune_set(), task.eval_set()
seconds = {"task to its first batch": time.perf_counter() - start}
peak = memory("VmHWM")
print(json.dumps({"seconds": seconds, "peak_rss_bytes": peak, "imported_rss_bytes": imported}))
"""


def measure(code: str, folder: Path, cache: Path) -> dict[str, Any]:
    """Run code in a fresh process with one thread; what it printed last, as JSON."""
    environment = {**os.environ, "TUNEMATRIX_CACHE": str(cache), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", MEMORY + code, str(folder)]
    ended = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(ended.stdout.splitlines()[-1])
    return found


def measure_all(folder: Path, cache: Path) -> dict[str, dict[str, Any]]:
    """Read without and with the index, then load the task with pictures to decode, and with decoded ones."""
    ways = {"without index": READING, "with index": READING, "pictures to decode": LOADING, "nothing to do": LOADING}
    return {name: measure(code, folder, cache) for name, code in ways.items()}


def main(data: Path | None, *, quick: bool) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = data or write_full_size(Path(name) / "data", 0.01 if quick else 1.0)
        found = measure_all(folder, Path(name) / "cache")
    rows = [
        [way, part, f"{seconds:.2f}", f"{facts['peak_rss_bytes'] / 2**20:.0f}"]
        for way, facts in found.items()
        for part, seconds in facts["seconds"].items()
    ]
    show(["", "", "seconds", "most memory of the process, MiB"], rows)
    if not quick:
        save("full_size", {"processes": found})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder in the official layout; without, one is made up")
    parser.add_argument("--quick", action="store_true", help="a hundredth of the questions: does it run?")
    main(**vars(parser.parse_args()))
