"""What the scripts here share: things timed in turns, and results written with the machine and the command.

A single figure of a machine that does other work says little, so every script times the things it
compares in turns within one process and reports ratios between neighbours: a slow minute hits both.
"""

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.records.environment import package_versions, processor_name

RESULTS = Path(__file__).parent / "results"
Seconds = dict[str, list[float]]


def in_turns(ways: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True) -> Seconds:
    """Seconds of every way in every round, one after the other within a round; one round more to warm up."""
    seconds: Seconds = {name: [] for name in ways}
    for turn in range(-1 if warm_up else 0, rounds):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def told(argument: str) -> str:
    """An argument as it may be published: of a path only the name."""
    return Path(argument).name if os.sep in argument else argument


def ratios(seconds: Seconds, slow: str, fast: str) -> dict[str, float]:
    """How many times faster `fast` is than `slow`: the median of the rounds' ratios, and their quartiles."""
    rounds = [one / other for one, other in zip(seconds[slow], seconds[fast], strict=True)]
    low, _, high = statistics.quantiles(rounds, n=4) if len(rounds) > 1 else rounds * 3
    return {"median": statistics.median(rounds), "quartile_low": low, "quartile_high": high}


def show(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a Markdown table."""
    cells = [list(columns), ["---"] * len(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[place]) for row in cells) for place in range(len(columns))]
    for row in cells:
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")


def save(name: str, figures: Mapping[str, Any]) -> None:
    """Write results/<name>.json: the figures, the machine, and the command that gave them."""
    content = {
        "command": shlex.join(["python", f"performance/{Path(sys.argv[0]).name}", *map(told, sys.argv[1:])]),
        "machine": {
            "processor": processor_name(),
            "processors": os.cpu_count(),
            "python": platform.python_version(),
            "packages": package_versions(),
        },
        **figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
