"""What all tests share: where the real slice of VQA v2 lies, and a quiet, deterministic torch."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def slice_dir():
    folder = ROOT.parent / "shared" / "data" / "vqa_v2_slice"
    assert folder.is_dir(), f"the real slice of VQA v2 should lie at {folder}"
    return folder
