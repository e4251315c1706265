"""Fine-tune a ViT under several plans: same start, same data; what each one trains and reaches.

    python examples/vit_image_classifier.py --strategies "full(lr=1e-3), lora(lr=3e-3), freeze"

The base has learnt the digits 0–4 of scikit-learn's 8 × 8 pictures and is tuned to tell 5–9. One learns to hand a
transformers vision model to a plan, to give it a new head, to have the same rate for the head under every plan, and
where adapters go: try `lora(lr=3e-3, roles=['up', 'down'])`, or `lora(scope='vit.layers.2')` for one block.
"""

import argparse
import copy
import itertools
import tempfile
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from transformers import ViTConfig, ViTForImageClassification

from strategies import Tuned, compose, load, parse_plans

EPOCHS, BATCH, TRAINING = 6, 32, 600


def make_items(first: int) -> list[dict[str, torch.Tensor]]:
    """Pictures of the five digits from `first` on, in a seeded order."""
    digits = load_digits()
    items = [
        {"pixel_values": torch.tensor(picture / 8 - 1).float().unsqueeze(0), "labels": torch.tensor(digit - first)}
        for picture, digit in zip(digits.images, digits.target, strict=True)
        if first <= digit < first + 5
    ]
    return [items[index] for index in torch.randperm(len(items), generator=torch.Generator().manual_seed(0))]


def build() -> nn.Module:
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 96}
    images = {"image_size": 8, "patch_size": 2, "num_channels": 1}
    return ViTForImageClassification(ViTConfig(**sizes, **images, num_labels=5, initializer_range=0.1))


def with_new_head(base: nn.Module) -> nn.Module:
    """Give a copy whose head starts again, as `from_pretrained(…, num_labels=5)` would."""
    torch.manual_seed(1)
    model = copy.deepcopy(base)
    model.classifier = nn.Linear(48, 5)
    return model


def train(tuned: Tuned, items: list[dict[str, torch.Tensor]]) -> None:
    collate, order = torch.utils.data.default_collate, torch.Generator().manual_seed(0)
    loader = tuned.loader(items, batch_size=BATCH, collate=collate, generator=order)
    for batch in itertools.chain(*[loader] * EPOCHS):
        tuned.step(lambda model, batch: model(**batch).loss, batch)


def main(strategies: str) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    base, steps = build(), EPOCHS * (TRAINING // BATCH)
    train(compose("full(lr=1e-3)").apply(base, total_steps=steps), make_items(0)[:TRAINING])  # a stand-in checkpoint
    items = make_items(5)
    held_out = {key: value.to(device) for key, value in torch.utils.data.default_collate(items[TRAINING:]).items()}
    rows = [f"{'plan':<20} {'accuracy':>8} {'trainable':>10} {'seconds':>8}  same after loading"]
    for name, plan in [(named.text, named.plan) for named in parse_plans(strategies)]:
        tuned = plan.apply(with_new_head(base), device=device, total_steps=steps, head_lr=1e-2)
        print(tuned.describe())
        start = time.perf_counter()
        train(tuned, items[:TRAINING])
        seconds, trained = time.perf_counter() - start, tuned.counts()["trainable_parameters"]
        with tempfile.TemporaryDirectory() as folder:
            tuned.save(Path(folder))
            again = load(Path(folder), with_new_head(base), device=device)
        with tuned.evaluating(), again.evaluating():
            logits, reloaded = tuned.model(**held_out).logits, again.model(**held_out).logits
        accuracy = (logits.argmax(-1) == held_out["labels"]).float().mean()
        rows.append(f"{name:<20} {accuracy:>8.2f} {trained:>10,} {seconds:>8.1f}  {torch.allclose(logits, reloaded)}")
    print(*rows, sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = "full(lr=1e-3), lora(lr=3e-3), freeze(last_n=1, lr=1e-3), freeze"
    parser.add_argument("--strategies", default=default, help="plans to compare, separated by commas")
    main(**vars(parser.parse_args()))
