"""The switch is thrown through one interface, and machines without tensor cores are told why not."""

import json
import subprocess
import sys

import pytest

from strategies.methods.numerics.tf32 import Tf32, use_tf32

STATES = """
import json, torch, warnings
warnings.simplefilter("error")
from strategies.methods.numerics.tf32 import use_tf32
b = torch.backends
read = lambda: [part.fp32_precision for part in (b.cuda.matmul, b.cudnn.conv, b.cudnn.rnn)]
before = read()
use_tf32()
use_tf32()
print(json.dumps([before, read()]))
"""


@pytest.mark.slow
def test_products_convolutions_and_recurrent_layers_are_switched():
    done = subprocess.run([sys.executable, "-c", STATES], check=True, capture_output=True, text=True)
    before, after = json.loads(done.stdout.splitlines()[-1])
    assert before[0] != "tf32"
    assert after == ["tf32"] * 3


def test_older_torch_has_only_the_older_switches(monkeypatch):
    import torch
    from torch.torch_version import TorchVersion

    class Old:
        allow_tf32 = False

    old_matmul, old_cudnn = Old(), Old()
    monkeypatch.setattr(torch, "__version__", TorchVersion("2.8.0+cu128"))
    monkeypatch.setattr(torch.backends.cuda, "matmul", old_matmul)
    monkeypatch.setattr(torch.backends, "cudnn", old_cudnn)
    use_tf32()
    assert vars(old_matmul) == vars(old_cudnn) == {"allow_tf32": True}


def test_versions_are_compared_as_numbers():
    from torch.torch_version import TorchVersion

    from strategies.methods.numerics.tf32 import ONE_API

    assert TorchVersion("2.8.0+cu128") < ONE_API <= TorchVersion("2.9.0+cpu") < TorchVersion("2.13.0+cpu")
    assert TorchVersion("2.11.0a0+git") >= ONE_API


def test_reasons(monkeypatch):
    import torch

    assert "tensor cores" in Tf32().unavailable("cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert "8.0" in Tf32().unavailable("cuda:0")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    assert Tf32().unavailable("cuda:0") is None
