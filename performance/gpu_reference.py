"""What the recipes cost on a GPU at full size: ViT-B/16 + BERT-base, some at ViT-L + BERT-large, on generated pictures.

python performance/gpu_reference.py [--minutes 9] [--out results/gpu-NAME] [--small]

Ordinary sweeps over `PARTS`, one after the other, every recipe of a part on equally many questions, the weights
random: time and memory do not depend on their values, and no quality is claimed. What is not reached within
--minutes is left to the same command given again, which goes on. `gpu_findings.py` then says what came out.
--small: the tiny model, a few updates, on whatever there is: does it run?
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pynvml
from gpu_findings import tell

from bench.records.collect import collect
from bench.sweep.matrix import TrainingOptions
from bench.sweep.request import Request
from bench.sweep.run import run_sweep
from strategies import parse_plans

ROOT = Path(__file__).resolve().parent.parent
TASK = "performance.gpu_task:ReferenceTask"


class Part(NamedTuple):
    """One sweep: a model, a batch, how many updates, and what is compared with full fine-tuning."""

    model: str
    batch: int
    steps: int
    recipes: Sequence[str]


SPEED = ("amp", "amp+compile", "amp+group_by_image", "amp+group_by_image+bucketing+compile")
LEAN = ("nf4+lora+amp+checkpointing", "nf4+lora+amp+checkpointing+group_by_image")
GRAPHS = ("amp+compile(mode='reduce-overhead', regional=False)", "amp+compile(regional=False)")
MORE = (
    "lora",
    "lora+amp+checkpointing",
    "amp+group_by_image+bucketing",
    "amp+attention(backend='efficient')",
    "qlora",
    "qlora8",
    "tf32",
    "compile",
    "checkpointing",
    "adamw8bit",
    "amp+adamw8bit+optimizer_in_backward",
    "amp+group_by_image+bucketing+compile+lora",
    "freeze",
    "fast",
)
PARTS = (
    Part("base", 256, 60, (*SPEED, *LEAN)),  # launching kernels hides the least here
    Part("base", 64, 60, (*SPEED, *GRAPHS, "lora+amp", "amp+checkpointing", *LEAN)),
    Part("large", 64, 20, ("amp", "lora+amp", LEAN[0])),
    Part("base", 64, 60, MORE),
    Part("base", 256, 60, (*GRAPHS, "lora+amp", "amp+checkpointing", *MORE[:4])),
)
SMALL = (Part("tiny", 16, 12, ("lora",)),)


def request(part: Part, out: Path, **options: int) -> Request:
    """The sweep as the command line would ask for it."""
    return Request(
        plans=parse_plans(",".join(part.recipes)),
        training=TrainingOptions(seeds=[0], batch_size=part.batch, max_steps=part.steps),
        task=TASK,
        overrides={"model": part.model, **options},
        out=out,
        command=["performance/gpu_reference.py"],
    )


def gpu_name() -> str:
    """The first GPU's name as a folder's, asked without touching it; empty without one."""
    try:
        pynvml.nvmlInit()
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
    except pynvml.NVMLError:
        return ""
    return "-".join(str(name).lower().replace("nvidia", "").split())


def time_is_up(*_: object) -> None:
    raise KeyboardInterrupt  # which keeps every finished run


def main(out: str, minutes: float, *, small: bool) -> int:
    os.chdir(ROOT)
    started, name = time.monotonic(), gpu_name()
    if not name and not small:
        print("no NVIDIA GPU here: --small tries the command on the CPU, at a small size", file=sys.stderr)
        return 2
    folder = Path(out or (f"results/gpu-{name}" if name and not small else "results/local/gpu-small"))
    signal.signal(signal.SIGALRM, time_is_up)
    signal.alarm(max(1, round(60 * minutes)))
    done = False
    try:
        for part in SMALL if small else PARTS:
            print(f"\n{part.model}, batch {part.batch}, {part.steps} updates", flush=True)
            run_sweep(request(part, folder, **({"pairs": 24} if small else {})))
        done = True
    except KeyboardInterrupt:
        print(f"\nnot all was reached within {minutes:g} minutes; the same command goes on", file=sys.stderr)
    signal.alarm(0)
    if (folder / "runs").is_dir():
        collect(folder)
        tell(folder)
    print(f"{time.monotonic() - started:.0f} s in all; everything lies in {folder}")
    return 0 if done else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="", help="results folder (default: results/gpu-NAME)")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--small", action="store_true", help="tiny model, few updates: does it run?")
    sys.exit(main(**vars(parser.parse_args())))
