"""Foreign models for the strategies, one thread: the models are so small that two threads only wait."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def foreign():
    import torch

    torch.set_num_threads(1)
    path = Path(__file__).parent / "foreign.py"
    spec = importlib.util.spec_from_file_location("foreign", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Leave all kinds of foreign models but the two towers, and all that compiles, to the whole suite."""
    for item in items:
        if hasattr(item, "callspec") and Path(__file__).parent in item.path.parents:
            kind = item.callspec.params.get("kind", "two")
            if kind != "two" or "compile" in item.callspec.id:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def _fresh_compiler():
    import sys

    yield
    if "torch._dynamo" in sys.modules:
        sys.modules["torch._dynamo"].reset()
        sys.modules["torch._dynamo"].utils.counters.clear()
