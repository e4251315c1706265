"""Time training steps of several recipes on the embedded default, in turns, so that a noisy machine hits them alike.

python performance/step_time.py full lora group_by_image --threads 1

A step is what it is in a run: the batch comes from the recipe's own loader, and collating it counts.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch

from strategies import Tuned, compose
from vqa_model.task import VQATask

BATCH, BATCHES, ROUNDS = 32, 4, 12


def endless(tuned: Tuned, task: VQATask) -> Iterator[Any]:
    order = torch.Generator().manual_seed(0)
    loader = tuned.loader(task.train_set(), batch_size=BATCH, collate=task.collate, generator=order)
    while True:
        yield from loader


def main(recipes: list[str], threads: int, rounds: int) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    task = VQATask()
    tuned = {text: compose(text).apply(task.build_model(), total_steps=1000) for text in recipes}
    batches = {text: endless(tuned[text], task) for text in recipes}
    milliseconds: dict[str, list[float]] = {text: [] for text in recipes}
    for turn in range(rounds + 1):
        for text in recipes:
            start = time.perf_counter()
            for _ in range(BATCHES if turn else 3 * BATCHES):  # the first turn warms up
                tuned[text].step(task.loss, next(batches[text]))
            if turn:
                milliseconds[text].append((time.perf_counter() - start) / BATCHES * 1000)
    width = max(map(len, recipes))
    fastest = {text: min(times) for text, times in milliseconds.items()}
    for text, times in milliseconds.items():
        ratio = fastest[text] / fastest[recipes[0]]
        middle = statistics.median(times)
        print(f"{text:<{width}} fastest {fastest[text]:6.1f} ms  median {middle:6.1f} ms  {ratio:.2f} ×")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["full", "lora"], help="sums of strategies; the first is 1.00 ×")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each recipe, after one to warm up")
    main(**vars(parser.parse_args()))
