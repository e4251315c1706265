"""The fast path from a course project's training to ours, rung by rung, each against the best below it in turns.

python performance/ladder.py [--data FOLDER] [--model small] [--threads 2] [--quick]

A rung is kept when its factor's interval lies above 1; the next is compared with what was kept. At the top the whole
ladder is compared with the bottom directly, and both train on equally many questions from the same weights, each with
the rates of `RATES`: the loss on unseen pictures must not be worse. Without a folder, pictures are generated.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from crowded_world import crowded_world
from intervals import median_interval, told
from measuring import Seconds, in_turns, save, show
from rungs import BATCH, RUNGS, Climber, Way

from vqa_model.task import VQATask

LENGTH = 24  # word pieces of a padded question
RATES = {"bottom": 1.0, "top": 1.0}


def compare(below: Climber, above: Climber, rounds: int, questions: int) -> list[float]:
    """Factors of neighbouring turns: how much faster `above` sees as many questions."""
    ways = {"below": lambda: below.advance(questions), "above": lambda: above.advance(questions)}
    seconds: Seconds = in_turns(ways, rounds)
    return [one / other for one, other in zip(seconds["below"], seconds["above"], strict=True)]


def climb(task: VQATask, pictures: Path, rounds: int, questions: int) -> tuple[Way, list[dict[str, Any]]]:
    """Try every rung; give the way at the top and each rung's factors."""
    way, tried, product = Way(), [], 1.0
    below = Climber(task, pictures, way)
    for name, change in RUNGS.items():
        changed = change(way)
        above = Climber(task, pictures, changed)
        start = time.perf_counter()
        above.advance(1)
        first = time.perf_counter() - start
        factors = compare(below, above, rounds, questions)
        low, middle, _ = median_interval(factors)
        kept = low > 1
        if kept:
            way, below, product = changed, above, product * middle
        tried.append({"rung": name, "factors": factors, "kept": kept, "product": product, "first_step_seconds": first})
        print(f"{name}: {told(factors)}, {'kept' if kept else 'left out'}", flush=True)
    return way, tried


def learn(task: VQATask, pictures: Path, ways: dict[str, Way], questions: int) -> dict[str, dict[str, float]]:
    """Loss on unseen pictures after equally many questions, and the seconds of training."""
    found = {}
    for name, way in ways.items():
        climber = Climber(task, pictures, way, RATES[name])
        start = time.perf_counter()
        climber.advance(questions)
        seconds = time.perf_counter() - start
        loss = climber.unseen_loss(min(len(task.tune_set()), 8 * BATCH))
        found[name] = {"unseen_loss": loss, "seconds": seconds, "updates": len(climber.losses)}
    return found


def measure(task: VQATask, pictures: Path, rounds: int, questions: int, learning: int) -> dict[str, Any]:
    items = task.train_set()
    asked = len(items) / len({question.image_id for question in items.questions})
    top, rungs = climb(task, pictures, rounds, questions)
    whole = compare(Climber(task, pictures, Way()), Climber(task, pictures, top), rounds, questions)
    loss = learn(task, pictures, {"bottom": Way(), "top": top}, learning)
    return {"questions_per_picture": asked, "rungs": rungs, "whole": whole, "top": str(top), "learning": loss}


def tell(name: str, found: dict[str, Any]) -> None:
    print(f"\n{name}, {found['questions_per_picture']:.2f} questions per picture\n")
    rows = [
        [rung["rung"], told(rung["factors"]), "yes" if rung["kept"] else "no", f"{rung['product']:.2f}"]
        for rung in found["rungs"]
    ]
    show(["rung", "factor", "kept", "product"], [*rows, ["whole ladder, directly", told(found["whole"]), "", ""]])
    ends = found["learning"]
    losses = " and ".join(f"{end['unseen_loss']:.3f} in {end['seconds']:.0f} s" for end in ends.values())
    print(f"\nLoss on unseen pictures after as many questions, bottom and top: {losses}")


def main(data: str, model: str, threads: int, *, quick: bool) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    rounds, questions, learning, pairs = (2, 1, BATCH, 40) if quick else (7, BATCH, 32 * BATCH, 600)
    figures = {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = [crowded_world(Path(scratch) / "crowded-world", pairs), *([Path(data)] if data else [])]
        for folder in folders:
            task = VQATask(data=str(folder), model=model, max_length=LENGTH)
            task.prepare()
            found = measure(task, folder / "train2014", rounds, questions, learning)
            tell(f"{model}, {folder.name}", found)
            figures[folder.name] = found
    if not quick:
        save("ladder", {"model": model, "threads": threads, "data": figures})
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="a folder in the official VQA v2 layout, too")
    parser.add_argument("--model", default="small")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="few questions, two rounds: does it run?")
    main(**vars(parser.parse_args()))
