"""Where bf16 is only emulated, asking for it is refused; a CPU may try both."""

import pytest

from strategies.methods.numerics import amp
from strategies.methods.numerics.amp import Amp


@pytest.fixture(params=[True, False], ids=["native", "emulated"])
def native(request, monkeypatch):
    import torch

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
