"""Seconds from the start of a run's process to its first training step, against importing the libraries alone.

python performance/startup.py [--quick] [RECIPE ...]

Each recipe's run on the embedded default (`tiny`, caches filled) takes turns with a bare process that imports
what a script for this task imports: torch, ViT, BERT, peft, bitsandbytes and scikit-learn's metrics.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from measuring import in_turns, save, show

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = """
import torch, peft, bitsandbytes, sklearn.metrics
from transformers import BertModel, ViTModel
"""
ROUNDS = 7


def run(*arguments: str) -> None:
    """Run a Python process in one thread; its output is shown where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{command} failed:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")


def specifications(recipes: list[str], folder: Path) -> dict[str, Path]:
    """Run each recipe once for two steps; the folders of the runs, by recipe."""
    limits = ("--max-steps", "2", "--seeds", "0", "--no-baseline")
    run("run_matrix.py", "--strategies", ",".join(recipes), *limits, "--out", str(folder))
    specs = {file.parent: json.loads(file.read_text()) for file in folder.glob("runs/*/spec.json")}
    return {spec["strategy"]: path for path, spec in specs.items() if spec["strategy"] in recipes}


def start(source: Path, found: list[float]) -> None:
    """Run a specification again; note when its first step was about to begin."""
    with tempfile.TemporaryDirectory() as name:
        shutil.copy(source / "spec.json", name)
        run("-m", "bench.worker", name)
        events = map(json.loads, (Path(name) / "events.jsonl").read_text().splitlines())
        found += [event["startup_seconds"] for event in events if "startup_seconds" in event]


def main(recipes: list[str], *, quick: bool) -> None:
    found: dict[str, list[float]] = {recipe: [] for recipe in recipes}
    with tempfile.TemporaryDirectory() as folder:
        specs = specifications(recipes, Path(folder))
        runs = {recipe: partial(start, specs[recipe], found[recipe]) for recipe in recipes}
        imports = partial(run, "-c", IMPORTS)
        seconds = in_turns({"imports alone": imports, **runs}, 1 if quick else ROUNDS, warm_up=False)
    found = {"imports alone": seconds["imports alone"], **found}
    alone = found["imports alone"]
    rows = []
    for name, times in found.items():
        middle = statistics.median(one / other for one, other in zip(times, alone, strict=True))
        rows.append([name, f"{statistics.median(times):.2f}", f"{min(times):.2f}", f"{middle:.2f} ×"])
    show(["to the first step", "median s", "fastest s", "of the imports"], rows)
    save("startup", {"seconds": found})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["full", "lora", "nf4+lora"], help="sums of strategies")
    parser.add_argument("--quick", action="store_true", help="one round: does it run?")
    main(**vars(parser.parse_args()))
