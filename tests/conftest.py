"""What all tests share: where the real slice of VQA v2 lies, and a quiet, deterministic torch."""

from pathlib import Path

import hypothesis
import pytest

hypothesis.settings.register_profile("suite", deadline=None)  # how long one example takes says who else is at work
hypothesis.settings.load_profile("suite")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root():
    return ROOT


@pytest.fixture(scope="session")
def slice_dir():
    folder = ROOT.parent / "shared" / "data" / "vqa_v2_slice"
    assert folder.is_dir(), f"the real slice of VQA v2 should lie at {folder}"
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """A cache of its own for every test session, so that tests see a fresh machine."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("TUNEMATRIX_CACHE", str(folder))
        yield folder
