"""Time training steps of several recipes on the embedded default, in turns, so that a noisy machine hits them alike.

python performance/step_time.py full lora lora+amp --threads 1
"""

import argparse
import statistics
import time

import torch

from strategies import compose
from vqa_model.task import VQATask

BATCH, BATCHES, ROUNDS = 32, 4, 12


def main(recipes: list[str], threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    task = VQATask()
    items = task.train_set()
    batches = [task.collate([items[number * BATCH + i] for i in range(BATCH)]) for number in range(BATCHES)]
    tuned = {text: compose(text).apply(task.build_model(), total_steps=1000) for text in recipes}
    milliseconds: dict[str, list[float]] = {text: [] for text in recipes}
    for turn in range(ROUNDS + 1):
        for text in recipes:
            start = time.perf_counter()
            for batch in batches:
                tuned[text].step(task.loss, batch)
            if turn:  # the first turn warms up
                milliseconds[text].append((time.perf_counter() - start) / BATCHES * 1000)
    fastest = {text: min(times) for text, times in milliseconds.items()}
    for text, times in milliseconds.items():
        ratio = fastest[text] / fastest[recipes[0]]
        print(f"{text:<24} fastest {fastest[text]:6.1f} ms  median {statistics.median(times):6.1f} ms  {ratio:.2f} ×")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["full", "lora"], help="sums of strategies; the first is 1.00 ×")
    parser.add_argument("--threads", type=int, default=1)
    main(**vars(parser.parse_args()))
