"""Which build of PyTorch a machine gets, and that the choice is told. GPU: what a driver's own program says."""

import runpy

import pytest

NO_GPU = "no NVIDIA GPU found: PyTorch's CPU build (TORCH=cuda takes the one for GPUs)"
GPU = "NVIDIA GPU found: PyTorch's build for it (TORCH=cpu takes the small one)"
PROGRAMS = {
    "no driver": (None, ("cpu", NO_GPU)),
    "a GPU": ("echo 'GPU 0: NVIDIA H100 (UUID: GPU-0)'", ("cuda", GPU)),
    "a driver without a GPU": ("echo 'No devices found.'; exit 6", ("cpu", NO_GPU)),
    "a container without the driver": (
        "echo 'couldn`t communicate with the NVIDIA driver' >&2; exit 9",
        ("cpu", NO_GPU),
    ),
}


@pytest.mark.parametrize("machine", PROGRAMS)
def test_the_build_follows_the_gpu(machine, root, tmp_path, monkeypatch):
    program, expected = PROGRAMS[machine]
    if program:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{program}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("platform.system", lambda: "Linux")
    choose = runpy.run_path(str(root / "install" / "environment.py"))["choose"]
    assert choose("") == expected
    assert choose("cpu") == ("cpu", "")
    assert choose("cuda") == ("cuda", "")


def test_elsewhere_there_is_one_build(root, monkeypatch):
    monkeypatch.setattr("platform.system", lambda: "Darwin")
    choose = runpy.run_path(str(root / "install" / "environment.py"))["choose"]
    assert choose("") == ("cpu", "")
    with pytest.raises(SystemExit, match="TORCH=cuda: PyTorch has no such build for Darwin"):
        choose("cuda")
