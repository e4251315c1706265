"""One small sweep that every test of the hand-ins looks at."""

import pytest
from filelock import FileLock

from vqa_model.picture_world import files as world_files
from vqa_model.picture_world.scenes import Settings


@pytest.fixture(scope="session")
def world(cache):
    """Folder of a small picture world in the official layout."""
    return world_files.world_folder(Settings(train_pairs=60, val_pairs=10))


@pytest.fixture(scope="session")
def matrix(run_matrix, cache):
    """Run `run_matrix.py` with some words and give what it printed; it has to succeed."""

    def run(*words, status=0):
        done = run_matrix(*words)
        assert done.returncode == status, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def sweep(matrix, world, shared_folder):
    """Results folder of three recipes after a few updates, trained once however many processes test."""
    out = shared_folder / "hand-ins" / "first"
    with FileLock(f"{out.parent}.lock"):
        if not (out / "summary.md").exists():
            recipes = ("--strategies", "lora,qlora,houlsby", "--max-steps", 6, "--batch-size", 16)
            matrix("--data", world, *recipes, "--out", out)
    return out
