"""What the recipes cost on a GPU at full size: ViT-B/16 + BERT-base, some at ViT-L + BERT-large, on generated pictures.

python performance/gpu_reference.py [--minutes 9] [--out results/gpu-NAME] [--quick]

Sweeps of `run_matrix.py` over `PLANS` one after the other, every recipe on equally many questions, the weights
random: time and memory do not depend on their values, and no quality is claimed. What is not reached within
--minutes is left for the same command given again, which goes on. Then `gpu_findings.py` says what came out.
--quick: the tiny model, a few updates, on whatever there is: does it run?
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from gpu_findings import tell

from vqa_model.picture_world import Settings
from vqa_model.world_files import world_folder

ROOT = Path(__file__).resolve().parent.parent
TASK = "performance.gpu_task:ReferenceTask"
QUESTIONS = 5120  # seen by every recipe
WORLD = Settings(train_pairs=1600, val_pairs=40, draws=(6, 11))  # VQA v2's 5.36 questions per picture
QUICK_WORLD = Settings(train_pairs=24, val_pairs=3, draws=(6, 11))


class Part(NamedTuple):
    """One sweep."""

    model: str
    batch: int
    recipes: Sequence[str]


LADDER = ("amp", "amp+group_by_image", "amp+group_by_image+bucketing", "amp+group_by_image+bucketing+compile")
BOTH_SIZES = (
    *LADDER,
    "amp+compile",
    "lora",
    "lora+amp",
    "amp+checkpointing",
    "lora+amp+checkpointing",
    "nf4+lora+amp+checkpointing",
)
ONE_SIZE = (
    "tf32",
    "qlora",
    "qlora8",
    "checkpointing",
    "compile",
    "adamw8bit",
    "amp+adamw8bit+optimizer_in_backward",
    "nf4+lora+amp+checkpointing+group_by_image",
    "amp+group_by_image+bucketing+compile+lora",
    "freeze",
    "fast",
)
LARGE = ("amp", "amp+compile", "lora+amp", "amp+checkpointing", "nf4+lora+amp+checkpointing")
PLANS = (
    Part("base", 64, BOTH_SIZES),
    Part("base", 256, BOTH_SIZES),
    Part("large", 64, LARGE),
    Part("base", 64, ONE_SIZE),
)


def command(part: Part, data: Path, out: Path, steps: int) -> list[str]:
    """The sweep as anyone would type it."""
    return [
        sys.executable, "run_matrix.py", "--task", TASK, "--data", str(data), "--model", part.model,
        "--batch-size", str(part.batch), "--max-steps", str(steps), "--out", str(out),
        "--strategies", ",".join(part.recipes),
    ]  # fmt: skip


def sweep(line: Sequence[str], seconds: float) -> bool:
    """Run one sweep, stopped as by Ctrl-C when its time is up; whether it came to its end."""
    child = subprocess.Popen(line, cwd=ROOT, start_new_session=True)
    try:
        child.wait(seconds)
    except subprocess.TimeoutExpired:
        child.send_signal(signal.SIGINT)  # which keeps every finished run and writes the CSVs
        child.wait()
        return False
    except BaseException:
        child.send_signal(signal.SIGINT)
        child.wait()
        raise
    return child.returncode == 0


def gpu_name() -> str:
    """The GPU's name as a folder's, `cpu` without one."""
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    words = torch.cuda.get_device_name().lower().replace("nvidia", "").split()
    return "-".join(words)


def main(out: str, minutes: float, *, quick: bool) -> int:
    deadline = time.monotonic() + 60 * minutes
    name = gpu_name()
    if name == "cpu" and not quick:
        print("no CUDA GPU here: --quick tries the command on the CPU, at a small size", file=sys.stderr)
        return 2
    folder = Path(out or f"results/{'local/' if quick else ''}gpu-{name}").absolute()
    data = world_folder(QUICK_WORLD if quick else WORLD)
    parts = [Part("tiny", 16, BOTH_SIZES[:2])] if quick else PLANS
    done = True
    for part in parts:
        left = deadline - time.monotonic()
        steps = 12 if quick else QUESTIONS // part.batch
        done = left > 0 and sweep(command(part, data, folder, steps), left) and done
    if (folder / "runs.csv").exists():
        tell(folder)
    if not done:
        print(f"not all was reached within {minutes:g} minutes; the same command goes on", file=sys.stderr)
    return 0 if done else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", default="", help="results folder (default: results/gpu-NAME)")
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--quick", action="store_true", help="tiny model, few updates: does it run?")
    sys.exit(main(**vars(parser.parse_args())))
