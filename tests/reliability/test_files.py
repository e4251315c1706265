"""What is said last is on the disk last: the order of writes, renames and forced writes, as the system is asked."""

import os
from pathlib import Path

import pytest

from bench.records.checkpoint_folder import checkpoint_folder, commit_checkpoint
from bench.records.events import RunResult
from bench.records.files import write_text
from bench.sweep.request import LaunchOptions
from bench.sweep.write_record import write_record
from tests.bench.sweep.test_launcher import SPEC


@pytest.fixture
def calls(monkeypatch):
    """Names that were forced to the disk or renamed, in their order."""
    made = []
    sync, replace = os.fsync, Path.replace

    def synced(number):
        made.append(("sync", Path(f"/proc/self/fd/{number}").readlink().name))
        sync(number)

    def replaced(self, target):
        made.append(("put", Path(target).name))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    return made


def test_a_file_is_forced_then_named_then_its_name_is_forced(calls, tmp_path):
    write_text(tmp_path / "file.csv", "a,b\n")
    (draft, put, folder) = calls
    assert draft[1].startswith(".file.csv.")
    assert (put, folder) == (("put", "file.csv"), ("sync", tmp_path.name))
    assert (tmp_path / "file.csv").read_text() == "a,b\n"


def test_the_record_comes_after_all_that_it_stands_for(calls, tmp_path):
    folder = tmp_path / "runs" / SPEC.run_id
    (folder / "weights").mkdir(parents=True)
    for name in ("events.jsonl", "predictions.parquet", "weights/tuned.safetensors", "weights/manifest.json"):
        (folder / name).write_text("x")
    write_record(SPEC, RunResult(status="ok"), folder, LaunchOptions(sweep="s", columns={}))
    before = calls[: calls.index(("put", "record.json"))]
    synced = {name for what, name in before if what == "sync"}
    assert synced >= {"events.jsonl", "predictions.parquet", "tuned.safetensors", "manifest.json", "weights"}
    assert calls[-1] == ("sync", folder.name)


def test_a_checkpoint_is_forced_before_it_takes_the_place_of_the_last(calls, tmp_path):
    new = checkpoint_folder(tmp_path, "new")
    new.mkdir()
    (new / "state.pt").write_bytes(b"state")
    commit_checkpoint(tmp_path)
    assert [call for call in calls if call[1] != tmp_path.name] == [
        ("sync", "state.pt"), ("sync", "checkpoint.new"), ("put", "checkpoint"),
    ]  # fmt: skip
    assert calls[-1] == ("sync", tmp_path.name)


def test_an_error_names_the_file_and_leaves_no_draft(tmp_path, monkeypatch):
    def full(number):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*/file\.csv'"):
        write_text(tmp_path / "file.csv", "a")
    assert list(tmp_path.iterdir()) == []
