"""Handwritten digits and a small network for them, on which optimizers are compared."""

import pytest

from strategies import Recipe


class Digits:
    """A batch, a network that is the same each time, and training on both."""

    def __init__(self):
        import torch
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        self.batch = torch.tensor(pixels[:512]).float() / 16, torch.tensor(labels[:512])

    def build(self):
        import torch

        torch.manual_seed(0)
        layers = [torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU()]
        return torch.nn.Sequential(*layers, torch.nn.Linear(128, 10))

    def loss(self, model, batch):
        import torch

        return torch.nn.functional.cross_entropy(model(batch[0]), batch[1])

    def trained(self, members, steps=20, **options):
        """Give what a plan of these members makes of the network, and its losses."""
        tuned = Recipe.of(members).apply(self.build(), total_steps=steps, **{"lr": 2e-3, "head_lr": 2e-3, **options})
        return tuned, [float(tuned.step(self.loss, self.batch)) for _ in range(steps)]


@pytest.fixture(scope="session")
def digits():
    return Digits()
