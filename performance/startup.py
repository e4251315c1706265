"""What a run costs before it trains: forked from a server that has imported everything, or a fresh interpreter.

python performance/startup.py [--quick] [--only start|figures|sweep]

`start`: seconds from the start of a run's process to its first training step, on the embedded default (`tiny`, caches
filled), beside a bare process that imports what a script for this task imports: torch, ViT, BERT, peft, bitsandbytes
and scikit-learn's metrics. `figures`: whether what a run measures depends on how it started; pairs of one run each, in
turns. `sweep`: the seconds of a whole `run_matrix.py` of ten runs of 20 updates.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from measuring import save, show

from bench.processes.environment import child_environment
from bench.processes.start import SWITCH, fork_server
from bench.records.json_files import read_json
from bench.records.spec import RunSpec
from bench.sweep.child_processes import modules_to_preload
from bench.sweep.launcher import launch
from bench.sweep.request import LaunchOptions
from bench.task import DEFAULT_TASK
from strategies import parse_plans

ROOT = Path(__file__).resolve().parent.parent
IMPORTS = """
import torch, peft, bitsandbytes, sklearn.metrics
from transformers import BertModel, ViTModel
"""
METHODS = ("fresh", "fork")
STARTED = ("full", "lora", "nf4+lora")
MEASURED = {"lora": 40, "qlora8": 20, "compile": 12}  # updates
SECONDS = ("ttt_seconds", "setup_seconds", "first_step_seconds", "compile_seconds", "train_seconds")
TEN = "lora,qlora,dora,freeze,linear_probe,bitfit,houlsby,lora+amp"


def run(*arguments: str, **variables: str) -> float:
    """Seconds of a Python process in one thread; its output is shown where it fails."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **variables}
    command, started = [sys.executable, *arguments], time.perf_counter()
    ended = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode:
        sys.exit(f"{command} failed:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")
    return time.perf_counter() - started


def specifications(recipes: Mapping[str, int], folder: Path) -> dict[str, RunSpec]:
    """Each recipe's run of so many updates, by recipe; the caches are filled."""
    found = {}
    for recipe, steps in recipes.items():
        out = folder / recipe.replace("+", "-")
        limits = ("--max-steps", str(steps), "--seeds", "0", "--no-baseline")
        run("run_matrix.py", "--strategies", recipe, *limits, "--out", str(out))
        specs = [RunSpec.from_json(read_json(file)) for file in out.glob("runs/*/spec.json")]
        found |= {spec.strategy: spec for spec in specs if spec.strategy == recipe}
    return found


def record(spec: RunSpec, method: str) -> dict[str, Any]:
    """Run it once, started this way; gives its record."""
    os.environ[SWITCH] = method
    with tempfile.TemporaryDirectory() as name:
        options = LaunchOptions(sweep="startup", columns={})
        found = launch(spec, Path(name) / "run", options, environ=child_environment({"OMP_NUM_THREADS": "1"}))
    assert found is not None
    assert found["row"]["status"] == "ok", found["row"]
    assert found["row"]["start_method"] == method
    return found


def measure_start(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds to the first step of each recipe and way to start, and of imports alone."""
    specs = specifications(dict.fromkeys(STARTED, 2), folder)
    found: dict[str, list[float]] = {"imports alone": []}
    for _ in range(rounds):
        found["imports alone"].append(run("-c", IMPORTS))
        for recipe, spec in specs.items():
            for method in METHODS:
                seconds = record(spec, method)["row"]["startup_seconds"]
                found.setdefault(f"{recipe}, {method}", []).append(seconds)
    rows = [[name, f"{statistics.median(all_):.2f}", f"{min(all_):.2f}"] for name, all_ in found.items()]
    show(["to the first step", "median s", "fastest s"], rows)
    return found


def measure_figures(folder: Path, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Ratios fork / fresh of what each recipe's run measures; losses, scores and allocator peaks must be the same."""
    found: dict[str, dict[str, list[float]]] = {}
    rows = []
    for recipe, spec in specifications(MEASURED, folder).items():
        pairs = []
        for turn in range(rounds):  # each goes first as often as the other
            both = {method: record(spec, method) for method in (METHODS if turn % 2 else reversed(METHODS))}
            pairs.append([both[method] for method in METHODS])
        for fresh, fork in pairs:
            for part in ("metrics", "memory"):
                assert fresh[part] == fork[part], (recipe, part)
            assert [point[4] for point in fresh["history"]] == [point[4] for point in fork["history"]], recipe
        for name in SECONDS:
            values = [(fresh["row"].get(name), fork["row"].get(name)) for fresh, fork in pairs]
            if all(one and other for one, other in values):
                ratios = sorted(fork / fresh for fresh, fork in values)
                fresh_s, fork_s = (statistics.median(side) for side in zip(*values, strict=True))
                found.setdefault(recipe, {})[name] = ratios
                spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
                middle = f"{statistics.median(ratios):.2f}"
                rows.append([recipe, name, f"{fresh_s:.3f}", f"{fork_s:.3f}", middle, spread])
    show(["recipe", "figure", "fresh, median s", "fork, median s", "fork / fresh", "all pairs"], rows)
    return found


def measure_sweep(folder: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds of a sweep of ten runs of 20 updates."""
    found: dict[str, list[float]] = {method: [] for method in METHODS}
    words = ("--strategies", TEN, "--no-baseline", "--max-steps", "20", "--seeds", "0")
    for turn in range(rounds):
        for method in METHODS:
            out = folder / f"{method}-{turn}"
            found[method].append(run("run_matrix.py", *words, "--out", str(out), **{SWITCH: method}))
    show(
        ["ten runs of 20 updates", "median s"],
        [[name, f"{statistics.median(all_):.1f}"] for name, all_ in found.items()],
    )
    return found


PARTS = {"start": (measure_start, 5), "figures": (measure_figures, 6), "sweep": (measure_sweep, 2)}


def main(only: str, *, quick: bool) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    file, found = ROOT / "performance" / "results" / "startup.json", {}
    if only and file.exists():
        found = {name: part for name, part in json.loads(file.read_text()).items() if name in PARTS}
    recipes = parse_plans(",".join(dict.fromkeys([*STARTED, *MEASURED])))
    for name, (measure, rounds) in PARTS.items():
        if only in ("", name):
            with tempfile.TemporaryDirectory() as folder, fork_server(modules_to_preload(DEFAULT_TASK, recipes)):
                found[name] = measure(Path(folder), 1 if quick else rounds)
            if not quick:  # after each: the next takes minutes
                save("startup", found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", choices=["", *PARTS], help="one part; the others' results stay")
    parser.add_argument("--quick", action="store_true", help="one round: does it run?")
    main(**vars(parser.parse_args()))
