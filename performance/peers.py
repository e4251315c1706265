"""Our loop against a bare PyTorch loop, Hugging Face's Trainer and a course project's, taking turns on one model.

python performance/peers.py [--models tiny small] [--device cuda] [--threads 1 --clock processor] [--quick]

Ratios are of neighbouring turns; the interval is that of their median. The same losses must come out of all loops,
or nothing is reported. Memory is the allocator's peak over one more update, above what lies there between updates.
On a CPU that others use too, the processor time of one thread says what wall-clock time cannot.
"""

import argparse
import gc
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from intervals import CLOCKS, median_interval, told
from measuring import save, show
from peer_loops import SEED, Bare, InTrainer, Ours, Setting, Student
from torch import Tensor
from transformers import TrainerCallback

from bench.worker.memory import allocation_peak
from vqa_model.picture_world.files import world_folder
from vqa_model.task import VQATask

RECIPES = ("full", "lora", "lora+amp")
PLANS = {"tiny": (32, 10, 31), "small": (16, 1, 15), "base": (64, 5, 15), "large": (64, 5, 15)}  # batch, steps, rounds
OTHERS = {"ours": Ours, "bare": Bare, "student": Student}
SAME, SIMILAR = 1e-4, 0.05  # relative difference of losses: rounding; pictures normalised in another order
LOWEST, MIDDLE = 0.95, 0.98  # what the lower end and the median of our speed must reach


def stream_of(device: str) -> list[Tensor]:
    """Where the random streams are."""
    return [torch.get_rng_state(), *([torch.cuda.get_rng_state()] if device == "cuda" else [])]


def set_stream(states: Sequence[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for state in states[1:]:
        torch.cuda.set_rng_state(state)


class Turns(TrainerCallback):
    """Times Trainer between its own steps, and gives the others their turns there, the first one changing."""

    def __init__(self, others: dict[str, Any], steps: int, device: str, clock: str) -> None:
        torch.manual_seed(SEED)
        self.others, self.steps, self.device, self.clock = others, steps, device, CLOCKS[clock]
        self.streams = {name: stream_of(device) for name in [*others, "trainer"]}
        self.seconds: dict[str, list[float]] = {name: [] for name in self.streams}
        self.started = 0.0

    def on_step_begin(self, _: Any, state: Any, __: Any, **___: Any) -> None:
        if state.global_step == 0:
            set_stream(self.streams["trainer"])
            self.started = self.clock()

    def on_step_end(self, _: Any, state: Any, __: Any, **___: Any) -> None:
        if state.global_step % self.steps:
            return
        self.wait()
        self.seconds["trainer"].append(self.clock() - self.started)
        names, turn = list(self.others), state.global_step // self.steps
        for place in range(len(names)):
            name = names[(place + turn) % len(names)]
            with self.stream(name):
                start = self.clock()
                self.others[name].advance(self.steps)
                self.wait()
                self.seconds[name].append(self.clock() - start)
        self.started = self.clock()

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    @contextmanager
    def stream(self, name: str) -> Iterator[None]:
        """Draw from the stream of `name` inside, and leave Trainer's as it was."""
        outer = stream_of(self.device)
        set_stream(self.streams[name])
        yield
        self.streams[name] = stream_of(self.device)
        set_stream(outer)


def peak(device: str, work: Any) -> int:
    """Bytes above what lies there before."""
    gc.collect()
    if device == "cpu":
        return allocation_peak(work)
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    return torch.cuda.max_memory_allocated() - before


def compare_losses(losses: dict[str, list[float]]) -> dict[str, float]:
    """Largest relative difference from the bare loop's; AssertionError where it is more than rounding."""
    bare = losses["bare"]
    apart = {
        name: max(abs(one - two) / abs(two) for one, two in zip(values, bare, strict=True))
        for name, values in losses.items()
    }
    for name, difference in apart.items():
        assert difference <= (SIMILAR if name == "student" else SAME), f"{name} trains otherwise: {apart}"
    return apart


def measure(setting: Setting, steps: int, clock: str) -> dict[str, Any]:
    """Seconds of each turn, peaks and differences of losses."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        others = {way: make(setting, folder) for way, make in OTHERS.items()}
        trainer = InTrainer(setting, folder)
        turns = Turns(others, steps, setting.device, clock)
        trainer.train(setting.steps, turns)
        loops = {**others, "trainer": trainer}
        apart = compare_losses({way: loop.loss.values() for way, loop in loops.items()})
        peaks = {way: peak(setting.device, lambda loop=loop: loop.advance(1)) for way, loop in others.items()}
        peaks["trainer"] = peak(setting.device, lambda: trainer.train(1, after=setting.steps))
    seconds = {way: values[1:] for way, values in turns.seconds.items()}
    speed = {
        way: [their / our for their, our in zip(values, seconds["ours"], strict=True)]
        for way, values in seconds.items()
        if way != "ours"
    }
    return {"seconds": seconds, "speed": speed, "peak_bytes": peaks, "losses_apart": apart}


def row(name: str, found: dict[str, Any], steps: int) -> list[str]:
    peaks, (_, own, _) = found["peak_bytes"], median_interval(found["seconds"]["ours"])
    memory = [f"{peaks['ours'] / peaks[way]:.3f}" for way in ("bare", "trainer", "student")]
    reached = all(
        median_interval(found["speed"][way])[0] >= LOWEST and median_interval(found["speed"][way])[1] >= MIDDLE
        for way in ("bare", "trainer")
    )
    speeds = [told(found["speed"][way]) for way in ("bare", "trainer", "student")]
    apart = max(found["losses_apart"][way] for way in ("ours", "trainer"))
    return [name, f"{1e3 * own / steps:.1f}", *speeds, "yes" if reached else "no", *memory, f"{apart:.0e}"]


def main(models: list[str], device: str, threads: int, clock: str, *, quick: bool) -> dict[str, Any]:
    torch.set_num_threads(1 if quick else threads)
    torch.set_flush_denormal(True)
    figures, rows = {}, []
    for model in models[:1] if quick else models:
        batch, steps, rounds = (4, 1, 2) if quick else PLANS[model]
        task = VQATask(model=model)
        task.prepare()
        for recipe in RECIPES[::2] if quick else RECIPES:
            setting = Setting(task, world_folder() / "train2014", recipe, batch, steps * (rounds + 1), device)
            found = measure(setting, steps, clock)
            name = f"{model}, {recipe}"
            figures[name] = {"batch_size": batch, "steps_per_turn": steps, **found}
            rows.append(row(name, found, steps))
            print(*rows[-1], sep=" | ", file=sys.stderr, flush=True)
    columns = ["", "ours, ms/step", "our speed × bare", "× Trainer", "× student", "reached", "our peak / bare"]
    show([*columns, "/ Trainer", "/ student", "losses apart"], rows)
    if not quick:
        save("peers", {"device": device, "threads": threads, "clock": clock, "recipes": figures})
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["tiny", "small"], choices=PLANS)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", default="wall", choices=CLOCKS)
    parser.add_argument("--quick", action="store_true", help="two recipes, small batches, two turns: does it run?")
    main(**vars(parser.parse_args()))
