"""The command line: `python run_matrix.py` and the console script `tunematrix`.

Nothing here loads torch, so `--help`, `list` and errors in a recipe answer at once.
"""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

from bench.commands.arguments import USAGE, make_parser, make_plan_parser
from bench.commands.compare import make_compare_parser, run_compare
from bench.commands.export import make_export_parser, run_export
from bench.commands.merge import make_merge_parser, run_merge
from bench.commands.streams import end_once, outlive_readers
from bench.records.checkpoint_folder import PAUSED
from bench.records.results_folder import InputError
from bench.sweep.child_processes import run_plan
from bench.sweep.matrix import TrainingOptions
from bench.sweep.request import Request
from bench.sweep.run import report_results, run_sweep
from bench.sweep.table import print_table
from bench.sweep.time_limit import TimeLimit
from bench.task import DEFAULT_TASK
from strategies import NamedPlan, catalogue, parse_plans, recipes
from strategies.cards.card import card
from strategies.errors import closest_first
from strategies.language.presets import PRESETS
from strategies.protocol import Kind

INTERRUPTED = 130

UNIMPLEMENTED_OPTIONS = {
    "devices": "--devices: not yet; runs use one device, choose it with --device",
    "executor": "--executor: not yet; runs are started one after another on this machine",
}
UNIMPLEMENTED_COMMANDS = {
    "repro": "repro: not yet; runs/RUN_ID/spec.json holds everything that decided the run",
}
COMMANDS: Final[
    dict[str, tuple[Callable[[], argparse.ArgumentParser], Callable[[argparse.Namespace, Sequence[str]], int]]]
] = {
    "compare": (make_compare_parser, run_compare),
    "merge": (make_merge_parser, run_merge),
    "export": (make_export_parser, run_export),
}


def choose_plans(options: argparse.Namespace) -> tuple[NamedPlan, ...]:
    """The recipes asked for: --strategies, else a preset."""
    if options.strategies is not None and options.preset:
        raise InputError("--strategies and --preset both name recipes; give one of them")
    if options.strategies is not None and not options.strategies.strip():
        raise InputError("--strategies is empty; name recipes such as lora,qlora,amp (`run_matrix.py list` shows them)")
    plans = parse_plans(options.strategies or PRESETS[options.preset or "default"].plans)
    if options.lr and len(plans) > 1 and not options.same_lr:
        raise InputError(
            "--lr with several recipes: each has its own rate; add --same-lr to mean it, or write lora(lr=...)"
        )
    if options.lr and not options.same_lr and plans[0].plan.rates().lr is None:
        raise InputError(f"--lr: {plans[0].text} trains no tower; give the head's rate in brackets, head_lr=...")
    return plans


def make_request(options: argparse.Namespace, command: Sequence[str]) -> Request:
    """Turn parsed options into a sweep. InputError for what does not go together or is not there yet."""
    for name, message in UNIMPLEMENTED_OPTIONS.items():
        if getattr(options, name):
            raise InputError(message)
    plans = choose_plans(options)
    overrides = {name: getattr(options, name) for name in ("data", "model", "vision", "text", "fraction")}
    overrides = {name: value for name, value in overrides.items() if value is not None}
    if options.skip_bad_images:
        overrides["skip_bad_images"] = True
    preset = PRESETS["default" if options.strategies else options.preset or "default"]
    training = TrainingOptions(
        seeds=options.seeds or list(preset.seeds), batch_size=options.batch_size, epochs=options.epochs,
        max_steps=options.max_steps, lr=options.lr, lr_for_all=options.same_lr,
    )  # fmt: skip
    if options.tune and options.lr:
        raise InputError("--tune chooses the rates itself, around each recipe's own; leave out --lr")
    out_name = Path(options.data).resolve().name if options.data else "embedded"
    if options.task != DEFAULT_TASK:
        out_name = options.task.partition(":")[2].partition("(")[0] or out_name
    out_name += "-tuned" if options.tune else ""
    return Request(
        plans=plans, training=training, task=options.task, overrides=overrides, device=options.device,
        baseline=not options.no_baseline, force=options.force, dry_run=options.dry_run, command=command,
        timeout_seconds=options.timeout, max_silence_seconds=options.max_silence,
        time_limit=options.time_limit and TimeLimit(options.time_limit),
        memory_snapshot=options.memory_snapshot, tune=options.tune, require_idle=options.require_idle,
        out=options.out or Path("results/local") / out_name,
    )  # fmt: skip


def print_list(words: Sequence[str]) -> int:
    """The `list` command: everything that can be named, or the whole cards of the given words."""
    cards = {name: card(strategy) for name, strategy in sorted(catalogue().items())}
    if words:
        return print_cards(words, cards)
    for kind in get_args(Kind):
        known = [shown for shown in cards.values() if shown["kind"] == kind]
        if not known:
            continue
        print_table(
            [kind, "what it does", "options and their defaults"],
            [[c["name"], c["summary"], c["options"]] for c in known],
        )
        print()
    print_table(["recipe", "stands for", "why"], [[name, *entry] for name, entry in sorted(recipes().items())])
    print()
    presets = [[name, preset.plans, ",".join(map(str, preset.seeds)), preset.why] for name, preset in PRESETS.items()]
    print_table(["preset", "recipes", "seeds", "why"], presets)
    print("\nJoin words with +, as in lora(r=16)+amp. `run_matrix.py list lora` shows what lora is, costs and needs.")
    return 0


def print_cards(words: Sequence[str], cards: Mapping[str, Mapping[str, Any]]) -> int:
    """Print what is known about each word."""
    for word in words:
        if word in recipes():
            print(f"{word} — {recipes()[word][1]}\n\nStands for: {recipes()[word][0]}\n")
        elif word in cards:
            print(f"{cards[word]['text']}\n\nOptions: {word}({cards[word]['options']})\n")
        else:
            known = closest_first(word, [*cards, *recipes()])
            print(f"run_matrix.py: list: unknown word {word!r}; there is: {known} (`list` shows all)", file=sys.stderr)
            return USAGE
    return 0


def run_command(name: str, words: Sequence[str]) -> int:
    """Run one of the commands; 2 and one line for bad input."""
    make, work = COMMANDS[name]
    options = make().parse_args(words)
    try:
        return work(options, [name, *words])
    except (ValueError, OSError) as error:
        print(f"run_matrix.py: {one_line(error)}", file=sys.stderr)
        return USAGE


def one_line(error: Exception) -> str:
    """One line of an error: for one of the system where it happened, what, and what to do."""
    if not isinstance(error, OSError) or not error.strerror:
        return str(error)
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    remedy = "make room there and give the same command again" if full else "see to it and give the same command again"
    return f"{error.filename or 'a file'}: {error.strerror}; {remedy}, finished runs are kept"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; gives the exit status: 0, 1 (--strict), 2 (bad input), 75 (--time-limit), 130 (Ctrl-C)."""
    if os.name == "nt":
        print("run_matrix.py: needs Linux or macOS; on Windows it runs in WSL (`wsl --install`)", file=sys.stderr)
        return USAGE
    outlive_readers()
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = given[0] if given and not given[0].startswith("-") else "run"
    if command in UNIMPLEMENTED_COMMANDS:
        print(UNIMPLEMENTED_COMMANDS[command], file=sys.stderr)
        return USAGE
    if command in {"list", *COMMANDS}:
        return print_list(given[1:]) if command == "list" else run_command(command, given[1:])
    return run_or_plan(command, given)


def run_or_plan(command: str, given: Sequence[str]) -> int:
    """Run a sweep, or only predict it; 2 and one line for bad input."""
    parser = make_plan_parser() if command == "plan" else make_parser()
    options = parser.parse_args(given[1:] if given[:1] in (["run"], ["plan"]) else given)
    end_once()
    try:
        request = make_request(options, given)
        if command == "plan":
            return run_plan(request, gpu=options.gpu, calibration=options.calibration, out=options.out)
        rows = run_sweep(request)
        if rows:
            report_results(rows, request.out)
    except (ValueError, OSError) as error:
        print(f"run_matrix.py: {one_line(error)}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("\ninterrupted: finished runs are kept; the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    paused = request.time_limit.message if request.time_limit else ""
    if paused:
        print(paused, file=sys.stderr)
    return PAUSED if paused else int(options.strict and any(row["status"] != "ok" for row in rows))
