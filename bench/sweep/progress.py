"""What a person sees while a sweep runs: a live display on a terminal, plain lines anywhere else."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

PLAIN_EVERY_SECONDS = 15.0


class Display(Protocol):
    """Told about every run of a sweep, in order."""

    def begin(self, name: str, number: int) -> None:
        """Run `number` (from 1) starts."""

    def event(self, event: Mapping[str, Any]) -> None:
        """Something happened in the run under way."""

    def end(self, outcome: str) -> None:
        """The run under way ended."""

    def close(self) -> None:
        """The sweep ended."""


def make_display(total: int) -> Display:
    """The live display when standard output is a terminal, else plain lines."""
    return LiveDisplay(total) if sys.stdout.isatty() else PlainDisplay(total)


def introduce(prepared: Mapping[str, Any], num_runs: int, tune: int | None, out: Path) -> None:
    """Say what is about to run, on what, and where the results go."""
    main, trials = prepared["main"], f", after trials of {tune} rates" if tune else ""
    data = f"{main['dataset']}, {prepared['train_samples']:,} examples to train on"
    print(f"Data: {data}. Model: {main['model_name']}. Device: {prepared['device']}.")
    print(f"{num_runs} runs{trials}, each in a process of its own. Records and logs: {out / 'runs'}", flush=True)


def duration(seconds: float) -> str:
    """Seconds as people read them: 45 s, 3 min 05 s, 2 h 07 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def step_text(event: Mapping[str, Any]) -> str:
    """Step, loss and speed of a step event."""
    return (
        f"step {event['step']}/{event['total']}  loss {event['loss']:.3f}  {event['samples_per_second']:.0f} samples/s"
    )


class Estimate:
    """Time left in the sweep, from the runs that are done and the share of the one under way."""

    def __init__(self, total: int) -> None:
        self.total, self.number, self.share = total, 0, 0.0
        self._started = time.monotonic()

    def text(self) -> str:
        """`ETA 3 min 05 s`, or nothing while there is too little to go by."""
        done = self.number - 1 + self.share
        if done <= 0:
            return ""
        spent = time.monotonic() - self._started
        return f"ETA {duration(spent / done * (self.total - done))}"


class PlainDisplay:
    """Lines for logs and notebooks: one when a run starts, some while it runs, one when it ends."""

    def __init__(self, total: int) -> None:
        self._estimate = Estimate(total)
        self._head, self._printed = "", 0.0

    def begin(self, name: str, number: int) -> None:
        self._head = f"[{number}/{self._estimate.total}] {name}"
        self._estimate.number, self._estimate.share, self._printed = number, 0.0, time.monotonic()
        left = self._estimate.text()
        print(f"{self._head}: started" + (f", {left}" if left else ""), flush=True)

    def event(self, event: Mapping[str, Any]) -> None:
        if event["event"] != "step":
            return
        self._estimate.share = event["step"] / event["total"]
        if time.monotonic() - self._printed >= PLAIN_EVERY_SECONDS:
            self._printed = time.monotonic()
            print(f"{self._head}: {step_text(event)}  {self._estimate.text()}", flush=True)

    def end(self, outcome: str) -> None:
        print(f"{self._head}: {outcome}", flush=True)

    def close(self) -> None:
        """Nothing to take down."""


class LiveDisplay:
    """Two bars, the sweep and the run under way; finished runs scroll above them."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        self._estimate = Estimate(total)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[info]}"),
        )
        self._progress = Progress(*columns)
        self._sweep = self._progress.add_task("runs", total=total, info="")
        self._run = self._progress.add_task("", total=None, info="")
        self._name = ""
        self._progress.start()

    def begin(self, name: str, number: int) -> None:
        self._name = name
        self._estimate.number, self._estimate.share = number, 0.0
        self._progress.update(self._sweep, completed=number - 1, info=self._estimate.text())
        self._progress.reset(self._run, description=name, total=None, info="starting")

    def event(self, event: Mapping[str, Any]) -> None:
        if event["event"] == "section":
            self._progress.update(self._run, info=event["name"])
        elif event["event"] == "step":
            self._estimate.share = event["step"] / event["total"]
            self._progress.update(self._run, total=event["total"], completed=event["step"], info=step_text(event))
            self._progress.update(self._sweep, info=self._estimate.text())

    def end(self, outcome: str) -> None:
        self._progress.update(self._sweep, advance=1)
        self._progress.console.print(f"{self._name}: {outcome}", highlight=False, markup=False)

    def close(self) -> None:
        self._progress.remove_task(self._run)
        self._progress.update(self._sweep, info="")
        self._progress.stop()
