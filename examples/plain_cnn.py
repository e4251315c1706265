"""Fine-tune a plain PyTorch network: convolutions, batch norm, no transformers anywhere.

    python examples/plain_cnn.py --strategies "full(lr=1e-3), lora(lr=3e-3), freeze(last_n=1, lr=1e-3), freeze"

The base has learnt the digits 0–4 of scikit-learn's 8 × 8 pictures and is tuned to tell 5–9. One learns that `lora`
goes into convolutions where there are no linear layers, that `last_n` counts repeated blocks of any class, and that a
frozen batch norm keeps its pretrained statistics while those of the trained ones move (last column).
"""

import argparse
import copy
import itertools
import tempfile
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from strategies import Tuned, compose, load, parse_plans

EPOCHS, BATCH, TRAINING = 6, 32, 600


class Block(nn.Module):
    """A convolution with batch norm, around a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, features: Tensor) -> Tensor:
        return features + torch.relu(self.norm(self.convolution(features)))


def build() -> nn.Module:
    torch.manual_seed(0)
    stem = nn.Sequential(nn.Conv2d(1, 24, 3, stride=2, padding=1), nn.BatchNorm2d(24), nn.ReLU())
    blocks = nn.Sequential(Block(24), Block(24), Block(24))
    return nn.Sequential(stem, blocks, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24 * 4, 5))


def make_items(first: int) -> list[dict[str, Tensor]]:
    """Pictures of the five digits from `first` on, in a seeded order."""
    digits = load_digits()
    items = [
        {"pixels": torch.tensor(picture / 16).float().unsqueeze(0), "labels": torch.tensor(digit - first)}
        for picture, digit in zip(digits.images, digits.target, strict=True)
        if first <= digit < first + 5
    ]
    return [items[index] for index in torch.randperm(len(items), generator=torch.Generator().manual_seed(0))]


def train(tuned: Tuned, items: list[dict[str, Tensor]]) -> None:
    collate, order = torch.utils.data.default_collate, torch.Generator().manual_seed(0)
    loader = tuned.loader(items, batch_size=BATCH, collate=collate, generator=order)
    for batch in itertools.chain(*[loader] * EPOCHS):
        tuned.step(lambda model, batch: nn.functional.cross_entropy(model(batch["pixels"]), batch["labels"]), batch)


def main(strategies: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base, steps = build(), EPOCHS * (TRAINING // BATCH)
    train(compose("full(lr=3e-3)").apply(base, total_steps=steps), make_items(0)[:TRAINING])  # a stand-in checkpoint
    norms = {name: part.running_mean for name, part in base.named_modules() if isinstance(part, nn.BatchNorm2d)}
    items = make_items(5)
    held_out = {key: value.to(device) for key, value in torch.utils.data.default_collate(items[TRAINING:]).items()}
    rows = [f"{'plan':<20} {'accuracy':>8} {'trainable':>10} {'seconds':>8}  same after loading  norms that moved"]
    for name, plan in [(named.text, named.plan) for named in parse_plans(strategies)]:
        tuned = plan.apply(copy.deepcopy(base), device=device, total_steps=steps, head_lr=1e-2)
        print(tuned.describe())
        start = time.perf_counter()
        train(tuned, items[:TRAINING])
        figures = f"{tuned.counts()['trainable_parameters']:>10,} {time.perf_counter() - start:>8.1f}"
        with tempfile.TemporaryDirectory() as folder:
            tuned.save(Path(folder))
            again = load(Path(folder), copy.deepcopy(base), device=device)
        with tuned.evaluating(), again.evaluating():
            logits, reloaded = tuned.model(held_out["pixels"]), again.model(held_out["pixels"])
        accuracy, same = (logits.argmax(-1) == held_out["labels"]).float().mean(), torch.allclose(logits, reloaded)
        moved = sum(not torch.equal(tuned.model.get_submodule(n).running_mean.cpu(), norms[n]) for n in norms)
        rows.append(f"{name:<20} {accuracy:>8.2f} {figures}  {same!s:<18}  {moved} of {len(norms)}")
    print(*rows, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "full(lr=1e-3), lora(lr=3e-3), freeze(last_n=1, lr=1e-3), freeze"
    parser.add_argument("--strategies", default=default, help="plans to compare, separated by commas")
    main(**vars(parser.parse_args()))
