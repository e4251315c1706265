"""The fast path from a course project's training to ours, rung by rung, each against the best below it in turns.

python performance/ladder.py [--data FOLDER] [--model small] [--threads 1 --clock processor] [--quick]

A rung is kept when its factor's interval lies above 1; the next is compared with what was kept. At the top the whole
ladder is compared with the bottom directly, and both train on equally many questions from the same weights, each at
the best of `RATES` by its loss on the tune set: the loss on the evaluation set must not be worse. Without a folder,
pictures are generated.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from crowded_world import crowded_world
from intervals import CLOCKS, median_interval, told
from measuring import save, show
from rungs import RUNGS, Climber, Way

from vqa_model.task import VQATask

LENGTH = 24  # word pieces of a padded question
TURN = 32  # questions
RATES = (0.5, 1.0, 2.0)  # times the default; both ends try them all


def compare(below: Climber, above: Climber, rounds: int, clock: str) -> list[float]:
    """Factors of neighbouring turns: how much faster `above` sees as many questions; one turn more to warm up."""
    now, factors = CLOCKS[clock], []
    for _ in range(rounds + 1):
        start = now()
        below.advance(TURN)
        middle = now()
        above.advance(TURN)
        factors.append((middle - start) / (now() - middle))
    return factors[1:]


def climb(
    task: VQATask, pictures: Path, names: Sequence[str], rounds: int, clock: str
) -> tuple[Way, list[dict[str, Any]]]:
    """Try every rung; give the way at the top and each rung's factors."""
    way, tried, product = Way(), [], 1.0
    below = Climber(task, pictures, way)
    for name in names:
        changed = RUNGS[name](way)
        above = Climber(task, pictures, changed)
        start = time.perf_counter()
        above.advance(1)
        first = time.perf_counter() - start
        factors = compare(below, above, rounds, clock)
        low, middle, _ = median_interval(factors)
        kept = low > 1
        if kept:
            way, below, product = changed, above, product * middle
        tried.append({"rung": name, "factors": factors, "kept": kept, "product": product, "first_step_seconds": first})
        print(f"{name}: {told(factors)}, {'kept' if kept else 'left out'}", file=sys.stderr, flush=True)
    return way, tried


def learn(task: VQATask, pictures: Path, top: Way, questions: int, clock: str) -> dict[str, dict[str, Any]]:
    """Losses on unseen pictures after equally many questions, and the seconds of training, at each end's best rate."""
    found, now = {}, CLOCKS[clock]
    for name, way in {"bottom": Way(), "top": top}.items():
        tried = []
        for rate in RATES:
            climber = Climber(task, pictures, way, rate, questions)
            start = now()
            climber.advance(questions)
            seconds = now() - start
            losses = {part: climber.unseen_loss(items) for part, items in unseen(task).items()}
            tried.append({"rate": rate, "seconds": seconds, "updates": len(climber.losses), **losses})
            print(f"{name}: {tried[-1]}", file=sys.stderr, flush=True)
        found[name] = {**min(tried, key=lambda trial: trial["tune_loss"]), "tried": tried}
    return found


def unseen(task: VQATask) -> dict[str, Any]:
    """Questions about pictures that nothing was trained on: one set to choose by, one to tell."""
    return {"tune_loss": task.tune_set(), "eval_loss": task.eval_set()}


def measure(
    task: VQATask, pictures: Path, names: Sequence[str], rounds: int, *, learning: int, clock: str
) -> dict[str, Any]:
    items = task.train_set()
    asked = len(items) / len({question.image_id for question in items.questions})
    top, rungs = climb(task, pictures, names, rounds, clock)
    whole = compare(Climber(task, pictures, Way()), Climber(task, pictures, top), rounds, clock)
    loss = learn(task, pictures, top, learning, clock)
    return {"questions_per_picture": asked, "rungs": rungs, "whole": whole, "top": str(top), "learning": loss}


def tell(name: str, found: dict[str, Any]) -> None:
    print(f"\n{name}, {found['questions_per_picture']:.2f} questions per picture\n")
    rows = [
        [
            rung["rung"],
            told(rung["factors"]),
            "yes" if rung["kept"] else "no",
            f"{rung['product']:.2f}",
            f"{rung['first_step_seconds']:.1f}",
        ]
        for rung in found["rungs"]
    ]
    direct = ["whole ladder, directly", told(found["whole"]), "", "", ""]
    show(["rung", "factor", "kept", "product", "first step, s"], [*rows, direct])
    ends = found["learning"]
    losses = " and ".join(
        f"{end['eval_loss']:.3f} in {end['seconds']:.0f} s at {end['rate']:g} × the default" for end in ends.values()
    )
    print(f"\nLoss on unseen pictures after as many questions, bottom and top: {losses}")


def main(data: str, model: str, threads: int, clock: str, *, quick: bool) -> dict[str, Any]:
    torch.set_num_threads(1 if quick else threads)
    torch.set_flush_denormal(True)
    rounds, learning, pairs = (1, TURN, 40) if quick else (9, 48 * TURN, 600)
    names = [name for name in RUNGS if name != "compile" or not quick]  # which takes longer than all others together
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = [crowded_world(Path(scratch) / "crowded-world", pairs), *([Path(data)] if data else [])]
        for folder in folders:
            task = VQATask(data=str(folder), model="tiny" if quick else model, max_length=LENGTH)
            task.prepare()
            found = measure(task, folder / "train2014", names, rounds, learning=learning, clock=clock)
            tell(f"{task.model_name}, {folder.name}", found)
            figures[folder.name] = found
    if not quick:
        save("ladder", {"model": model, "threads": threads, "clock": clock, "data": figures})
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="a folder in the official VQA v2 layout, too")
    parser.add_argument("--model", default="small", help="a size of the task's model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--quick", action="store_true", help="few questions, one round: does it run?")
    main(**vars(parser.parse_args()))
