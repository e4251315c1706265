"""What the command line accepts, in words that teach.

Frozen by a test against docs/command-line.md: a flag is added only together with that page (`make docs`).
"""

from __future__ import annotations

import argparse
import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NoReturn

from bench.sweep.request import MAX_SILENCE_SECONDS
from bench.task import DEFAULT_TASK
from strategies.language.presets import PRESETS

USAGE: Final = 2  # exit status for bad input

EPILOG = """\
examples:
  python run_matrix.py                                     the default matrix on the embedded data set
  python run_matrix.py --strategies lora,qlora,amp         these against full fine-tuning
  python run_matrix.py --strategies 'lora(r=16)+amp+checkpointing' --seeds 0,1,2
  python run_matrix.py --data DIR --strategies lora        VQA v2 files in their official layout
  python run_matrix.py --strategies qlora --dry-run        what would run, what is refused and why

A recipe is a sum: strategies joined by +, options in brackets; the order does not matter. `list` shows them all.
A sweep that was stopped goes on where it was when the same command is given again.

other commands:
  list [WORD ...]  strategies, recipes and presets, with their options; what a WORD is, costs and needs
  plan             predict memory, time and cost of recipes, train nothing (`plan --help`)
  compare OLD NEW  what changed between two sweeps, in both directions (`compare --help`)
  merge FOLDER …   join results folders; the same run is recognised by its id (`merge --help`)
  export RUN       a finished run's model as a folder to use and to hand in (`export --help`)
  repro RUN_ID     run one result again (not yet)
"""


def positive(kind: Callable[[str], float], text: str) -> Any:
    """A number above zero; argparse turns the error into its one line."""
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not value > 0 or value == float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive {'whole number' if kind is int else 'number'}")
    return value


def positive_int(text: str) -> int:
    """A whole number above zero."""
    return int(positive(int, text))


def int_above_one(text: str) -> int:
    """A whole number above one."""
    number = positive_int(text)
    if number == 1:
        raise argparse.ArgumentTypeError("1 rate leaves nothing to choose; take 2 or more")
    return number


def positive_float(text: str) -> float:
    """A number above zero."""
    return float(positive(float, text))


def fraction(text: str) -> float:
    """A number above 0 and at most 1."""
    value = positive_float(text)
    if value > 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share between 0 and 1")
    return value


def seed_list(text: str) -> list[int]:
    """Comma-separated seeds, each once."""
    try:
        seeds = [int(part) for part in text.split(",")]
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 0,1,2") from None
    if len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise argparse.ArgumentTypeError(f"{text!r}: each seed once, none below 0")
    return seeds


def parse_duration(text: str) -> float:
    """Seconds of a time such as 90, 90s, 30m, 11.5h or 1:30:00."""
    parts = re.fullmatch(r"(\d+):([0-5]\d)(?::([0-5]\d))?", text)
    single = re.fullmatch(r"(\d+\.?\d*|\.\d+)([smh]?)", text)
    if parts:
        hours, minutes, rest = (int(part or 0) for part in parts.groups())
        seconds: float = 3600 * hours + 60 * minutes + rest
    else:
        seconds = float(single[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[single[2]] if single else 0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no time such as 90s, 30m, 11.5h or 1:30:00")
    return seconds


class OneLineParser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and where to look; exit with 2."""
        self.exit(USAGE, f"{self.prog}: {message} (--help shows every option and command)\n")


PLAN_EPILOG = """\
examples:
  python run_matrix.py plan                                    the default matrix, on this machine
  python run_matrix.py plan --model base --batch-size 64 --gpu t4 --strategies full,lora,qlora,lora+amp
  python run_matrix.py plan --model large --gpu 16GB --strategies full,lean
  python run_matrix.py plan --gpu l4 --calibration results/mine    times from finished runs on that GPU

No GPU is needed, no weights are read and nothing is trained: recipes are run through on tensors without values.
"""


def make_plan_parser() -> argparse.ArgumentParser:
    """The parser of the `plan` command: what to predict, and for which GPU."""
    parser = make_parser()
    parser.prog, parser.epilog = "run_matrix.py plan", PLAN_EPILOG
    parser.description = "Predict memory by kind, operations, largest batch, time and cost of recipes; train nothing."
    target = parser.add_argument_group("for which machine (plan only)")
    target.add_argument("--gpu", default="", metavar="NAME", help="t4, l4, a100, h100 …, or a size such as 16GB")
    target.add_argument("--calibration", default="", metavar="RUNS", help="runs.csv of that GPU to take times from")
    return parser


def make_parser() -> argparse.ArgumentParser:
    """The parser of the `run` command."""
    text = functools.partial(argparse.RawDescriptionHelpFormatter, width=100)
    parser = OneLineParser(
        prog="run_matrix.py",
        description="Compare fine-tuning recipes: quality × time × memory, each run in a process of its own.",
        epilog=EPILOG, formatter_class=text, allow_abbrev=False,
    )  # fmt: skip
    what = parser.add_argument_group("what to compare")
    what.add_argument(
        "--strategies",
        metavar="SUMS",
        help="comma-separated recipes, e.g. lora,qlora,lora+amp (quote brackets)",
    )
    what.add_argument("--preset", choices=sorted(PRESETS), help="a ready-made list of recipes (default: default)")
    what.add_argument("--no-baseline", action="store_true", help="do not add full fine-tuning to the list")
    what.add_argument(
        "--seeds",
        type=seed_list,
        metavar="N,N",
        help="seeds, each a run per recipe (default: the preset's, else 0)",
    )
    task = parser.add_argument_group("on which task, data and model")
    task.add_argument(
        "--task",
        default=DEFAULT_TASK,
        metavar="MODULE:CLASS",
        help=f"a task by import path, with options (default: {DEFAULT_TASK})",
    )
    task.add_argument(
        "--data", metavar="DIR", help="folder with the data (VQA v2: official file names; default: embedded)"
    )
    task.add_argument("--model", metavar="SIZE", help="tiny (ships with weights), small, base or large")
    task.add_argument("--vision", metavar="CHECKPOINT", help="ViT-family checkpoint: local folder or hub id")
    task.add_argument("--text", metavar="CHECKPOINT", help="BERT-family checkpoint: local folder or hub id")
    task.add_argument(
        "--fraction", type=fraction, metavar="SHARE", help="share of the training images to use, e.g. 0.25"
    )
    task.add_argument("--skip-bad-images", action="store_true", help="leave out pictures that cannot be read")
    how = parser.add_argument_group("how to train")
    how.add_argument(
        "--epochs",
        type=positive_float,
        metavar="N",
        help="passes over the training set (default: the task's)",
    )
    how.add_argument("--max-steps", type=positive_int, metavar="N", help="at most this many optimizer updates")
    how.add_argument("--batch-size", type=positive_int, metavar="N", help="examples per update (default: the task's)")
    how.add_argument("--lr", type=positive_float, metavar="RATE", help="learning rate in place of the recipe's own")
    how.add_argument("--same-lr", action="store_true", help="let --lr hold for several recipes, baseline included")
    how.add_argument(
        "--tune",
        type=int_above_one,
        metavar="N",
        help="choose each recipe's rate among N on the tune set: its default and a grid around it, √10 apart",
    )
    where = parser.add_argument_group("where and how long")
    where.add_argument("--device", default="", metavar="NAME", help="cpu or cuda (default: cuda where there is one)")
    where.add_argument("--devices", metavar="LIST", help="several devices side by side (not yet)")
    where.add_argument("--executor", metavar="NAME", help="where runs are started (not yet)")
    where.add_argument("--out", type=Path, metavar="DIR", help="results folder (default: results/local/<data>)")
    where.add_argument(
        "--timeout",
        type=positive_float,
        metavar="SECONDS",
        help="stop a run after this long; it becomes a row",
    )
    where.add_argument(
        "--max-silence",
        type=parse_duration,
        default=MAX_SILENCE_SECONDS,
        metavar="TIME",
        help="stop a run that tells nothing for so long, as it hangs; it becomes a row (default: 1h)",
    )
    where.add_argument(
        "--time-limit",
        type=parse_duration,
        metavar="TIME",
        help="pause the sweep in time for a wall-clock limit (90s, 30m, 11.5h, 1:30:00), exit status 75; the same "
        "command goes on in the middle of a run",
    )
    where.add_argument(
        "--memory-snapshot",
        action="store_true",
        help="write memory.pickle of one step of each run, for https://pytorch.org/memory_viz (CUDA)",
    )
    where.add_argument(
        "--require-idle",
        action="store_true",
        help="refuse to begin, exit status 2, while others use the CPUs or the GPU; run again what was disturbed",
    )
    where.add_argument("--force", action="store_true", help="run again what is finished")
    where.add_argument("--strict", action="store_true", help="exit with 1 when a run did not end ok")
    where.add_argument("--dry-run", action="store_true", help="show what would run and what is refused, run nothing")
    return parser
