"""How much of a training step waits for its batch, from the second pass over the data on.

python performance/feeding.py [--data FOLDER] [--quick]

Full fine-tuning in one thread, with the loader and the collating of a run. The first pass touches every
row of the memory map and is not counted. What collating costs is also given for each of its batches alone.
"""

import argparse
import statistics
import time
from typing import Any

import torch
from measuring import save, show

from strategies import compose
from vqa_model.task import VQATask

BATCH, WARM_UP = 32, 5


def measure(task: VQATask, steps: int) -> dict[str, float]:
    """Seconds that steps take and wait for their batch, from the second pass on."""
    torch.manual_seed(0)
    tuned = compose("full").apply(task.build_model(), total_steps=1000)
    items, order = task.train_set(), torch.Generator().manual_seed(0)
    loader = tuned.loader(items, batch_size=BATCH, collate=task.collate, generator=order)
    for _ in loader:  # the first pass
        pass
    waits, whole = [], []
    batches = iter(loader)
    for step in range(steps + WARM_UP):
        asked = time.perf_counter()
        batch: Any = next(batches, None)
        if batch is None:
            batches = iter(loader)
            batch = next(batches)
        given = time.perf_counter()
        tuned.step(task.loss, batch)
        if step >= WARM_UP:
            waits.append(given - asked)
            whole.append(time.perf_counter() - asked)
    share = sum(waits) / sum(whole)
    return {"step_seconds": statistics.median(whole), "wait_seconds": statistics.median(waits), "wait_share": share}


def main(data: str, *, quick: bool) -> None:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    figures: dict[str, dict[str, float]] = {}
    for folder in ("", data) if data else ("",):
        for model, steps in (("tiny", 400), ("small", 40)):
            task = VQATask(model=model, data=folder)
            name = f"{model}, {task.dataset_name}"
            figures[name] = measure(task, 5 if quick else steps)
    show(
        ["", "step ms", "wait ms", "wait / step"],
        [
            [name, f"{1e3 * f['step_seconds']:.2f}", f"{1e3 * f['wait_seconds']:.3f}", f"{f['wait_share']:.2%}"]
            for name, f in figures.items()
        ],
    )
    save("feeding", {"batch_size": BATCH, "wait": figures})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="", help="folder in the official VQA v2 layout to measure as well")
    parser.add_argument("--quick", action="store_true", help="few steps: does it run?")
    main(**vars(parser.parse_args()))
