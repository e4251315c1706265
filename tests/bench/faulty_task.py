"""A small real task that can be told to go wrong in each of the ways a run can end."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

SLOW_SECONDS = 0.08  # more in each step


def nothing():
    pass


def fail():
    raise RuntimeError("the disk with the weights has gone")


def hang():
    subprocess.Popen(["sleep", "3600.125"])  # a grandchild that must not outlive the run
    time.sleep(3600)


def hog():
    kept = [bytearray(b"x" * (64 << 20)) for _ in range(1 << 10)]  # until the kernel ends it
    del kept


def flood():
    for number in range(3000):
        print(number, "x" * 1000)
    raise RuntimeError("and then it ended")


def garble():
    with (Path(sys.argv[1]) / "events.jsonl").open("a") as log:
        log.write("no event\n")
    time.sleep(3600)


FAULTS = {
    "raise": fail,
    "exit": lambda: sys.exit(3),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "hang": hang,
    "hog": hog,
    "segfault": lambda: ctypes.string_at(0),
    "flood": flood,
    "garble": garble,
    "vanish": lambda: shutil.rmtree(sys.argv[1]),
    "oom": lambda: torch.empty(1 << 50, dtype=torch.uint8),
}


def line(number):
    generator = torch.Generator().manual_seed(number)
    x = torch.randn(8, generator=generator)
    return {"id": number, "x": x, "y": int(x.sum() > 0)}


@dataclass(frozen=True, kw_only=True)
class FaultyTask:
    fault: str = ""
    at_step: int = 12
    items: int = 256

    default_epochs: ClassVar[float] = 2
    default_batch_size: ClassVar[int] = 16
    dataset_name: ClassVar[str] = "lines"
    model_name: ClassVar[str] = "mlp"

    def prepare(self):
        if self.fault == "prepare":
            raise ValueError("lines.json: line 3: not a line; give another folder")

    def data_fingerprint(self):
        return "0123456789ab"

    def model_fingerprint(self):
        return "ba9876543210"

    def build_model(self):
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))

    def train_set(self):
        return [line(i) for i in range(self.items)]

    def tune_set(self):
        return [] if self.fault == "untuned" else [line(i) for i in range(1000, 1040)]

    def eval_set(self):
        return [line(i) for i in range(2000, 2100)]

    def collate(self, items):
        return {
            "id": torch.tensor([i["id"] for i in items]),
            "x": torch.stack([i["x"] for i in items]),
            "y": torch.tensor([i["y"] for i in items]),
        }

    def loss(self, model, batch):
        calls = COUNTER["calls"] = COUNTER["calls"] + 1
        loss = nn.functional.cross_entropy(model(batch["x"]), batch["y"])
        if self.fault == "slow":
            time.sleep(SLOW_SECONDS)
        if calls == self.at_step:
            FAULTS.get(self.fault, nothing)()
        return loss * float("nan") if (calls, self.fault) == (self.at_step, "nan") else loss

    def predict(self, model, batch):
        best = model(batch["x"]).softmax(-1).max(-1)
        return [
            {"id": i, "prediction": str(p), "target": str(t), "probability": q}
            for i, p, t, q in zip(
                batch["id"].tolist(), best.indices.tolist(), batch["y"].tolist(), best.values.tolist(), strict=True
            )
        ]

    def evaluate(self, predictions):
        return {}, {p["id"]: float(p["prediction"] == p["target"]) for p in predictions}


COUNTER = {"calls": 0}
