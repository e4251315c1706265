"""A mirror of the small picture world for every test, and the samples it is asked for."""

import signal
import threading

import pytest

from tests.vqa_model.downloading.command import EVAL_FRACTION, FRACTION, members
from tests.vqa_model.downloading.mirror import Mirror, mirror_files


@pytest.fixture(scope="session")
def files(small_world):
    return mirror_files(small_world)


@pytest.fixture(scope="session")
def sampled(small_world):
    return members(small_world, train=FRACTION, val=EVAL_FRACTION)


@pytest.fixture(scope="session")
def everything(small_world):
    return members(small_world, train=1, val=1)


@pytest.fixture
def mirror(files, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Mirror(files)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.gone.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def handlers():
    """`main` takes over signals, as a program may."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def out(tmp_path):
    return tmp_path / "vqa2"
