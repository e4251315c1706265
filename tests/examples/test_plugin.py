"""The example package is installed for real, and its word is used from a fresh process."""

import os
import shutil
import subprocess
import sys

import pytest

PROGRAM = """
import torch
from strategies import PlanError, compose, load
from tunematrix_neftune import noisy

torch.manual_seed(0)
words = torch.zeros(64, 4, 16)
moved = noisy(words, 5.0)
assert moved.abs().max() <= 5 / (4 * 16) ** 0.5 < 1.01 * moved.abs().max()
assert abs(moved.mean()) < 0.02


def build():
    torch.manual_seed(1)
    return torch.nn.Sequential(
        torch.nn.Embedding(9, 16), torch.nn.Flatten(), torch.nn.Linear(64, 16), torch.nn.ReLU(), torch.nn.Linear(16, 2)
    )


batch = {"x": torch.randint(0, 9, (64, 4)), "y": torch.arange(64) % 2}
loss_fn = lambda model, batch: torch.nn.functional.cross_entropy(model(batch["x"]), batch["y"])
losses = {}
for plan in ("lora(lr=1e-2)", "lora(lr=1e-2)+neftune(alpha=1)"):
    tuned = compose(plan).apply(build(), total_steps=60)
    losses[plan] = [float(tuned.step(loss_fn, batch)) for _ in range(60)]
    assert losses[plan][-1] < losses[plan][0]
plain, noised = losses.values()
assert plain[0] != noised[0], "noise in training"
with tuned.evaluating():
    once, twice = tuned.model(batch["x"]), tuned.model(batch["x"])
assert torch.equal(once, twice), "no noise in evaluation"
tuned.save(__import__("pathlib").Path("saved"))
again = load(__import__("pathlib").Path("saved"), build())
with again.evaluating():
    assert torch.equal(again.model(batch["x"]), once)
for plan, words in (("neftune+neftune(alpha=2)", "noise on embeddings"), ("neftune(modules=['up'])", "it has: 0")):
    try:
        compose(plan).apply(build())
    except PlanError as refusal:
        assert words in str(refusal), refusal
    else:
        raise AssertionError(plan)
print("trained")
"""


@pytest.fixture(scope="module")
def installed(root, tmp_path_factory):
    """Install from a copy, without network and without touching this environment."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(root / "examples" / "plugin", folder / "source")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(source)],
        env={**os.environ, "PIP_CACHE_DIR": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "site"


def call(root, installed, tmp_path, *command):
    environment = {"PYTHONPATH": f"{installed}:{root}", "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_word_is_listed_with_its_card(root, installed, tmp_path):
    done = call(root, installed, tmp_path, str(root / "run_matrix.py"), "list")
    assert done.returncode == 0, done.stderr
    assert "neftune" in done.stdout
    assert "alpha=5.0" in done.stdout
    without = call(root, tmp_path, tmp_path, str(root / "run_matrix.py"), "list")
    assert "neftune" not in without.stdout


@pytest.mark.slow
def test_it_trains_in_a_sum_with_lora(root, installed, tmp_path):
    done = call(root, installed, tmp_path, "-c", PROGRAM)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "trained"
