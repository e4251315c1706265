"""Scratch folders go with their process, and those of a killed one with the next sweep."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from bench.processes.environment import child_environment
from bench.processes.scratch import remove_abandoned, scratch_folder

USER = """
import sys, time
from bench.processes.scratch import scratch_folder
with scratch_folder() as folder:
    (folder / "large").write_text("x")
    print(folder, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_gone_in_the_end_whatever_happens(temporary):
    with scratch_folder() as folder:
        assert folder.parent == temporary
        remove_abandoned()
        assert folder.is_dir(), "in use"
    with pytest.raises(KeyError), scratch_folder():
        raise KeyError
    assert list(temporary.iterdir()) == []


def test_of_a_killed_process_it_is_removed_by_the_next(temporary):
    environment = {**child_environment({}), "TMPDIR": str(temporary)}
    process = subprocess.Popen([sys.executable, "-c", USER], stdout=subprocess.PIPE, text=True, env=environment)
    folder = Path(process.stdout.readline().strip())
    remove_abandoned()
    assert (folder / "large").exists()
    process.kill()
    process.wait()
    process.stdout.close()
    assert (folder / "large").exists()
    remove_abandoned()
    assert list(temporary.iterdir()) == []


def test_what_is_not_known_to_be_ours_stays(temporary):
    (temporary / "precious").mkdir()
    (temporary / "precious" / ".in-use").touch()
    (temporary / "tunematrix-link").symlink_to(temporary / "precious")
    (temporary / "tunematrix-file").touch()
    (temporary / "tunematrix-being-made").mkdir()
    before = sorted(temporary.rglob("*"))
    remove_abandoned()
    assert sorted(temporary.rglob("*")) == before
