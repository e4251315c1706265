"""The command line: `python run_matrix.py` and the console script `tunematrix`.

Frozen by a test against docs/command-line.md: a flag is added only together with that page. Nothing here loads
torch, so `--help`, `list` and errors in a recipe answer at once.
"""

from __future__ import annotations

import argparse
import functools
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.folder import InputError
from bench.matrix import Rules
from bench.sweep import Request, run_sweep, show
from bench.table import print_table
from bench.task import DEFAULT_TASK
from strategies import NamedPlan, catalogue, parse_plans, recipes
from strategies.cards import card
from strategies.presets import PRESETS

USAGE = 2
INTERRUPTED = 130

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
  list             strategies, recipes and presets, with their options
  plan             predict memory, time and cost, train nothing (not yet)
  compare, merge   compare or join results folders (not yet)
  repro RUN_ID     run one result again (not yet)
"""

NOT_YET = {
    "tune": "--tune: not yet; sweep rates with --lr and --task '...(evaluate_on=\"tune\")' meanwhile",
    "time_limit": "--time-limit: not yet; --timeout limits each run, and a stopped sweep goes on when started again",
    "devices": "--devices: not yet; runs use one device, choose it with --device",
    "executor": "--executor: not yet; runs are started one after another on this machine",
}
LATER_COMMANDS = {
    "plan": "plan: not yet; --dry-run shows what would run and what is refused",
    "compare": "compare: not yet; runs.csv of two folders can be joined on run_id",
    "merge": "merge: not yet; copy the folders under runs/ of one results folder into another's; ids never clash",
    "repro": "repro: not yet; runs/RUN_ID/spec.json holds everything that decided the run",
}


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


def positive_float(text: str) -> float:
    """A number above zero."""
    return float(positive(float, text))


def share(text: str) -> float:
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


def make_parser() -> argparse.ArgumentParser:
    """The parser of the `run` command."""
    text = functools.partial(argparse.RawDescriptionHelpFormatter, width=100)
    parser = argparse.ArgumentParser(
        prog="run_matrix.py",
        description="Compare fine-tuning recipes: quality × time × memory, one fresh process per run.",
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
        default=[0],
        metavar="N,N",
        help="seeds, each a run per recipe (default: 0)",
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
    task.add_argument("--fraction", type=share, metavar="SHARE", help="share of the training images to use, e.g. 0.25")
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
        type=positive_int,
        metavar="N",
        help="same budget of N learning rates for each recipe (not yet)",
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
    where.add_argument("--time-limit", metavar="TIME", help="stop the sweep in time for a wall-clock limit (not yet)")
    where.add_argument("--force", action="store_true", help="run again what is finished")
    where.add_argument("--strict", action="store_true", help="exit with 1 when a run did not end ok")
    where.add_argument("--dry-run", action="store_true", help="show what would run and what is refused, run nothing")
    return parser


def choose_plans(options: argparse.Namespace) -> tuple[NamedPlan, ...]:
    """The recipes asked for: --strategies, else a preset."""
    if options.strategies is not None and options.preset:
        raise InputError("--strategies and --preset both name recipes; give one of them")
    if options.strategies is not None and not options.strategies.strip():
        raise InputError("--strategies is empty; name recipes such as lora,qlora,amp (`run_matrix.py list` shows them)")
    plans = parse_plans(options.strategies or PRESETS[options.preset or "default"][0])
    if options.lr and len(plans) > 1 and not options.same_lr:
        raise InputError(
            "--lr with several recipes: each has its own rate; add --same-lr to mean it, or write lora(lr=...)"
        )
    if options.lr and not options.same_lr and plans[0].plan.rates().lr is None:
        raise InputError(f"--lr: {plans[0].text} trains no tower; give the head's rate in brackets, head_lr=...")
    return plans


def make_request(options: argparse.Namespace, command: Sequence[str]) -> Request:
    """Turn parsed options into a sweep. InputError for what does not go together or is not there yet."""
    for name, message in NOT_YET.items():
        if getattr(options, name):
            raise InputError(message)
    plans = choose_plans(options)
    overrides = {name: getattr(options, name) for name in ("data", "model", "vision", "text", "fraction")}
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if options.skip_bad_images:
        overrides["skip_bad_images"] = True
    rules = Rules(
        seeds=options.seeds, batch_size=options.batch_size, epochs=options.epochs, max_steps=options.max_steps,
        lr=options.lr, lr_for_all=options.same_lr,
    )  # fmt: skip
    place = Path(options.data).resolve().name if options.data else "embedded"
    if options.task != DEFAULT_TASK:
        place = options.task.partition(":")[2].partition("(")[0] or place
    return Request(
        plans=plans, rules=rules, task=options.task, overrides=overrides, device=options.device,
        baseline=not options.no_baseline, force=options.force, dry_run=options.dry_run, command=command,
        timeout_seconds=options.timeout, out=options.out or Path("results/local") / place,
    )  # fmt: skip


def print_list() -> int:
    """The `list` command: everything that can be named."""
    cards = [card(strategy) for _, strategy in sorted(catalogue().items())]
    known = [[shown["name"], shown["options"], shown["summary"]] for shown in cards]
    print_table(["strategy", "options and their defaults", "what it does"], known)
    print()
    print_table(["recipe", "stands for", "why"], [[name, *entry] for name, entry in sorted(recipes().items())])
    print()
    print_table(["preset", "recipes", "why"], [[name, *entry] for name, entry in sorted(PRESETS.items())])
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status: 0, 1 with --strict, 2 for bad input, 130 when interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given[0] if given and not given[0].startswith("-") else "run"
    if command in LATER_COMMANDS:
        print(LATER_COMMANDS[command], file=sys.stderr)
        return USAGE
    if command == "list":
        return print_list()
    options = make_parser().parse_args(given[1:] if given[:1] == ["run"] else given)
    for number in (signal.SIGTERM, signal.SIGHUP):  # a closed terminal or a scheduler ends the run under way, too
        signal.signal(number, signal.default_int_handler)
    try:
        request = make_request(options, given)
        rows = run_sweep(request)
    except (ValueError, OSError) as error:
        print(f"run_matrix.py: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("\ninterrupted: finished runs are kept; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    if rows:
        show(rows, request.out)
    return int(options.strict and any(row["status"] != "ok" for row in rows))
