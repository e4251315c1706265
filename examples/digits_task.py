"""Bring your own task: a small convolutional network on scikit-learn's handwritten digits (8 × 8 pixels).

    python run_matrix.py --task "examples.digits_task:DigitsTask" --strategies freeze,lora,amp

A task is a frozen dataclass with these methods; it imports nothing from the suite. Training images are split by a
seeded shuffle; only the tune set may choose anything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

Item = Mapping[str, Any]
SMALLEST, TRAINING, TUNING, ALL = 100, 1200, 1350, 1797


class DigitsNet(nn.Module):
    """Two convolutions, two wide linear layers, a head over ten digits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.Flatten())
        self.body = nn.Sequential(nn.Linear(16 * 36, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, 10)

    def forward(self, pixels: Tensor) -> Tensor:
        """Logits (batch, 10) of pixels (batch, 1, 8, 8)."""
        logits: Tensor = self.head(self.body(self.features(pixels)))
        return logits


@dataclass(frozen=True, kw_only=True)
class DigitsTask:
    """Which digit is it? `width` of the hidden layers; `limit` keeps that many training items."""

    width: int = 128
    limit: int = TRAINING

    default_epochs: ClassVar[float] = 3
    default_batch_size: ClassVar[int] = 32
    dataset_name: ClassVar[str] = "digits"
    model_name: ClassVar[str] = "digits-net"

    def prepare(self) -> None:
        """Refuse sizes that leave no data."""
        if not SMALLEST <= self.limit <= TRAINING or self.width < 1:
            sizes = f"limit={self.limit} should be {SMALLEST} to {TRAINING}, width={self.width} at least 1"
            raise ValueError(f"DigitsTask: {sizes}")

    def data_fingerprint(self) -> str:
        """Hash of the pixels."""
        return hashlib.sha256(load_digits().data.tobytes()).hexdigest()[:12]

    def model_fingerprint(self) -> str:
        """The model starts at random, so its shape decides it."""
        return hashlib.sha256(repr(DigitsNet(self.width)).encode()).hexdigest()[:12]

    def build_model(self) -> nn.Module:
        """A fresh network from the global random state."""
        return DigitsNet(self.width)

    def _items(self, start: int, stop: int) -> list[Item]:
        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))[start:stop]
        pixels = torch.from_numpy(digits.images[order]).float().div(16).unsqueeze(1)
        return [
            {"id": int(index), "pixels": pixel, "digit": int(digits.target[index])}
            for index, pixel in zip(order, pixels, strict=True)
        ]

    def train_set(self) -> list[Item]:
        """Items to train on."""
        return self._items(0, self.limit)

    def tune_set(self) -> list[Item]:
        """Items that may choose rates."""
        return self._items(TRAINING, TUNING)

    def eval_set(self) -> list[Item]:
        """Items to report on."""
        return self._items(TUNING, ALL)

    def collate(self, items: Sequence[Item]) -> dict[str, Tensor]:
        """One batch: ids (batch,), pixels (batch, 1, 8, 8), digits (batch,)."""
        return {
            "id": torch.tensor([item["id"] for item in items]),
            "pixels": torch.stack([item["pixels"] for item in items]),
            "digit": torch.tensor([item["digit"] for item in items]),
        }

    def loss(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean cross-entropy."""
        return nn.functional.cross_entropy(model(batch["pixels"]).float(), batch["digit"])

    def predict(self, model: nn.Module, batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
        """The most probable digit of each item."""
        best = model(batch["pixels"]).float().softmax(-1).max(-1)
        return [
            {"id": item, "prediction": str(answer), "target": str(truth), "probability": probability}
            for item, answer, truth, probability in zip(
                batch["id"].tolist(), best.indices.tolist(), batch["digit"].tolist(), best.values.tolist(), strict=True
            )
        ]

    def evaluate(self, predictions: Sequence[Mapping[str, Any]]) -> tuple[dict[str, float], dict[Any, float]]:
        """No metrics beyond the classic ones; an example scores 1 when it is right."""
        return {}, {p["id"]: float(p["prediction"] == p["target"]) for p in predictions}
