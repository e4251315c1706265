"""A norm is known by its class, by torch's or its own name for it, or by the place where it stands."""

import pytest
import torch
from torch import nn

from strategies import PlanError, compose
from strategies.structure.norms import is_norm


class RMS(nn.Module):
    """Scales, and is not called a norm."""

    def __init__(self):
        super().__init__()
        self.g = nn.Parameter(torch.ones(8))


class Scale(nn.Module):
    """The same under another name."""

    def __init__(self):
        super().__init__()
        self.g = nn.Parameter(torch.ones(8))


@pytest.mark.parametrize(
    ("module", "name", "known"),
    [
        (nn.LayerNorm(8), "a", True), (nn.BatchNorm1d(8), "a", True), (RMS(), "a", True),
        (Scale(), "layers.0.attention_norm", True), (Scale(), "layers.0.scale", False),
        (nn.Linear(8, 8), "norm_proj", False), (nn.Sequential(nn.Linear(8, 8)), "norm", False),
    ],
)  # fmt: skip
def test_what_is_a_norm(module, name, known):
    assert is_norm(module, name) == known


def test_norms_by_place_train_and_are_no_head():
    class Body(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.ffn_norm, self.norm = nn.Linear(8, 8), Scale(), Scale()

    tuned = compose("layernorm").apply(Body(), head=None)
    assert tuned.trained == {"ffn_norm.g", "norm.g"}
    with pytest.raises(PlanError, match="its last part 'norm' is a norm"):
        compose("layernorm").apply(Body())
