"""What changes a weight that other code reads says so: the layer's outputs stay, the model's do not."""

import pytest
import torch
from torch import nn

from strategies import compose


class TiedAutoencoder(nn.Module):
    """A decoder that is the encoder transposed."""

    def __init__(self):
        super().__init__()
        self.encoder, self.latent = nn.Linear(16, 12), nn.Linear(12, 10)

    def forward(self, x):
        code = self.latent(torch.relu(self.encoder(x)))
        return nn.functional.linear(code, self.latent.weight.t()) @ self.encoder.weight


def test_merging_says_that_the_outputs_change():
    torch.manual_seed(0)
    model, x = TiedAutoencoder(), torch.randn(6, 16)
    tuned = compose("lora").apply(model, head=None, lr=1e-2)
    for _ in range(3):
        tuned.step(lambda m, batch: nn.functional.mse_loss(m(batch), batch), x)
    with pytest.warns(UserWarning, match=r"merging changes the weight of 'encoder' and 1 more, which TiedAutoencoder"):
        merged = tuned.merge(lambda m: m(x))
    assert merged.output_drift > 1e-4


@pytest.mark.parametrize("plan", ["pissa(r=4)", "olora(r=4)"])
def test_a_start_that_changes_weights_says_so(plan):
    with pytest.warns(
        UserWarning, match=r"which TiedAutoencoder\.forward reads .* take lora there, or exclude_modules"
    ):
        compose(plan).apply(TiedAutoencoder(), head=None)
