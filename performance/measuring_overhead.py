"""What measuring costs a training step: our loop with everything it measures against the same steps alone, in turns.

python performance/measuring_overhead.py [--model tiny] [--threads 1] [--quick]

Two answers. The first is direct: `bench.worker.loop.Training` against `Tuned.step` on the same batches, which noise
blurs. The second is computed: what a section mark and the watch of a step cost, timed over many, times how often they
come, over the time of a step; it has to be below 1 %.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from intervals import told
from measuring import save, show

from bench.records.events import EventWriter
from bench.worker.loop import MID_EVALUATIONS, Training, cycle
from bench.worker.sections import Clock
from strategies import compose
from vqa_model.task import VQATask

BATCH, STEPS_OF_A_RUN = 32, 480  # the embedded default's
MARKS = 2 * MID_EVALUATIONS + 1  # sections while training: warm-up, and a part and an evaluation for each of these
GOAL = 0.01


class Nothing:
    """Trains nothing: what is left of the loop is its watch."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.loss = device, torch.zeros(())

    def step(self, *_: object) -> torch.Tensor:
        return self.loss


def seconds_each(work: Callable[[], object], times: int) -> float:
    """Least of several rounds: what others do to this machine only adds."""
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(times):
            work()
        rounds.append((time.perf_counter() - start) / times)
    return min(rounds)


def watch_seconds(task: VQATask, emit: EventWriter, times: int) -> float:
    """What `Training` adds to a step: the clock, the largest batch, the loss read now and then."""
    device = torch.device("cpu")
    batch = task.collate([task.train_set()[place] for place in range(BATCH)])
    tuned: Any = Nothing(device)
    clock = Clock(emit, device)
    training, batches = Training(tuned, task, clock, emit, BATCH, 10**9), cycle([batch])
    with clock.section("warmup"):
        return seconds_each(lambda: training._advance(batches, training.step + 100), times) / 100  # noqa: SLF001


def main(model: str, threads: int, *, quick: bool) -> dict[str, Any]:
    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    rounds, steps, times = (2, 2, 20) if quick else (31, 10, 200)
    task = VQATask(model=model)
    task.prepare()
    tuned = compose("full").apply(task.build_model(), total_steps=10**6)
    loader = tuned.loader(
        task.train_set(), batch_size=BATCH, collate=task.collate, generator=torch.Generator().manual_seed(0)
    )
    batches, factors, alone = cycle(loader), [], []
    with tempfile.TemporaryDirectory() as scratch:
        emit = EventWriter(Path(scratch) / "events.jsonl")
        clock = Clock(emit, tuned.device)
        training = Training(tuned, task, clock, emit, BATCH, 10**6)
        for turn in range(rounds + 1):
            start = time.perf_counter()
            for _ in range(steps):
                tuned.step(task.loss, next(batches))
            middle = time.perf_counter()
            with clock.section("train"):
                training._advance(batches, training.step + steps)  # noqa: SLF001
            end = time.perf_counter()
            if turn:
                alone.append((middle - start) / steps)
                factors.append((end - middle) / (middle - start))

        def mark() -> None:
            with clock.section("train"):
                pass

        per_mark, per_watch = seconds_each(mark, times), watch_seconds(task, emit, times)
        emit.close()
    step = statistics.median(alone)
    share = (per_mark * MARKS / STEPS_OF_A_RUN + per_watch) / step
    figures = {
        "model": model, "threads": threads, "step_seconds": step, "loop_over_steps": factors,
        "mark_seconds": per_mark, "watch_seconds": per_watch, "marks": MARKS, "steps": STEPS_OF_A_RUN, "share": share,
    }  # fmt: skip
    show(
        ["model", "step, ms", "loop / steps alone", "a mark, µs", "watching a step, µs", "share", "below 1 %"],
        [[
            model, f"{1e3 * step:.1f}", told(factors), f"{1e6 * per_mark:.0f}", f"{1e6 * per_watch:.1f}",
            f"{share:.3%}", "yes" if share < GOAL else "no",
        ]],
    )  # fmt: skip
    if not quick:
        save("measuring_overhead", figures)
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help="few steps: does it run?")
    main(**vars(parser.parse_args()))
