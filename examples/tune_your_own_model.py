"""Tune a model of your own with a composed recipe: nothing of the benchmark is needed, only `strategies`.

Run: python examples/tune_your_own_model.py "lora(r=8)+amp"
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import nn

from strategies import compose, load


def build() -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU()]
    return nn.Sequential(*body, nn.Linear(64, 2))


def loss_fn(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    return nn.functional.cross_entropy(model(batch["points"]), batch["labels"])


def main(recipe: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    points = torch.randn(512, 16, generator=torch.Generator().manual_seed(0))
    data = [{"points": point, "labels": (point[:8].sum() > 0).long()} for point in points]
    tuned = compose(recipe).apply(build(), device=device, total_steps=5 * 16)
    print(tuned.describe())
    loader = tuned.loader(data, batch_size=32, collate=torch.utils.data.default_collate, generator=torch.Generator())
    for epoch in range(5):
        losses = [tuned.step(loss_fn, batch) for batch in loader]
        print(f"epoch {epoch}: loss {torch.stack(losses).mean():.3f}")
    with tempfile.TemporaryDirectory() as folder:
        print(f"saved {tuned.save(Path(folder)):,} bytes")
        again = load(Path(folder), build(), device=device)
    with again.evaluating():
        labels = torch.stack([item["labels"] for item in data]).to(device)
        right = again.model(points.to(device)).argmax(-1) == labels
        print(f"accuracy after loading: {right.float().mean():.2f}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "lora(r=8)+amp")
