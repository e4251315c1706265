"""Where bf16 is only emulated, asking for it is refused; a CPU may try both."""

import pytest
import torch
from torch import nn

from strategies import PlanError, compose
from strategies.methods.numerics import amp
from strategies.methods.numerics.amp import Amp


@pytest.fixture(params=[True, False], ids=["native", "emulated"])
def native(request, monkeypatch):
    answer = request.param
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation or answer)
    amp.native_bf16.cache_clear()
    yield answer
    amp.native_bf16.cache_clear()


def test_bf16_on_a_gpu(native):
    reason = Amp(dtype="bf16").unavailable("cuda:0")
    assert (reason is None) == native
    assert native or "fp16" in reason
    assert Amp().unavailable("cuda:0") is None
    assert Amp(dtype="fp16").unavailable("cuda:0") is None
    assert Amp().facts("cuda:0")["precision"] == ("bf16" if native else "fp16")


@pytest.mark.parametrize("dtype", ["bf16", "fp16", None])
def test_a_cpu_may_try_both(dtype, native):
    assert Amp(dtype=dtype).unavailable("cpu") is None
    assert Amp(dtype=dtype).facts("cpu")["precision"] == (dtype or "bf16")


class Sums(torch.autograd.Function):
    """A sum of rows by a sparse matrix, whose backward pass takes one type."""

    @staticmethod
    def forward(ctx, rows, matrix):
        ctx.save_for_backward(matrix)
        return (matrix @ rows.float()).to(rows.dtype)

    @staticmethod
    def backward(ctx, gradient):
        with torch.autocast("cpu", enabled=False):
            return ctx.saved_tensors[0].t() @ gradient, None


@pytest.mark.parametrize("plan", ["amp(dtype='bf16')", "pure_bf16"])
def test_a_backward_pass_that_mixes_types_is_told(plan):
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 3))
    matrix = torch.eye(4)
    tuned = compose(plan).apply(model, head="1")

    def loss_fn(model, batch):
        return model[1](Sums.apply(model[0](batch), matrix)).float().square().mean()

    with pytest.raises(PlanError, match=r"mixes number types in a way that autocast does not sort out"):
        tuned.step(loss_fn, torch.randn(4, 8))


def test_torch_s_transformer_is_evaluated_under_autocast():
    class Translating(nn.Module):
        def __init__(self):
            super().__init__()
            self.transformer = nn.Transformer(16, 2, 1, 1, 32, dropout=0.0, batch_first=True)
            self.head = nn.Linear(16, 5)

        def forward(self, x):
            mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
            return self.head(self.transformer(x, x, tgt_mask=mask))

    x = torch.randn(2, 6, 16)
    tuned = compose("amp(dtype='bf16')").apply(Translating(), head="head")
    tuned.step(lambda m, batch: m(batch).float().square().mean(), x)
    with tuned.evaluating():
        assert tuned.model(x).isfinite().all()
    assert torch.backends.mha.get_fastpath_enabled()
