"""A checkpoint is gone on from when it is whole: every other state has its word, and none is trained on."""

import json
import shutil

import pytest

from bench.records.checkpoint_folder import (
    UnusableCheckpointError,
    checkpoint_folder,
    commit_checkpoint,
    find_progress,
    read_progress,
    verify,
    write_progress,
)
from bench.records.json_files import sealed

STATE = bytes(range(256)) * 40
LOG = b'{"event": "section", "name": "train"}\n' * 9


@pytest.fixture
def folder(tmp_path):
    new = checkpoint_folder(tmp_path, "new")
    new.mkdir()
    (new / "state.pt").write_bytes(STATE)
    (tmp_path / "events.jsonl").write_bytes(LOG)
    write_progress(new, step=7, total=9, events_bytes=len(LOG), seconds={"train": 1.5}, wall_seconds=2.5)
    commit_checkpoint(tmp_path)
    return tmp_path


def state_of(folder):
    """The word for what is there: none, whole, or the reason."""
    try:
        progress = find_progress(folder)
        if progress is None:
            return "none"
        verify(folder, progress)
    except UnusableCheckpointError as error:
        return str(error)
    return "whole"


def test_a_whole_one_is_whole_and_none_is_none(folder):
    assert state_of(folder) == "whole"
    with (folder / "events.jsonl").open("ab") as log:
        log.write(b"more, which will be cut off")
    assert state_of(folder) == "whole"
    shutil.rmtree(checkpoint_folder(folder))
    assert state_of(folder) == "none"


@pytest.mark.parametrize("name", ["state.pt", "place.json"])
@pytest.mark.parametrize("damage", ["changed", "cut", "emptied", "removed"])
def test_a_damaged_one_is_never_used(folder, name, damage):
    file = checkpoint_folder(folder) / name
    content = file.read_bytes()
    if damage == "changed":
        for place in range(0, len(content), 1 + len(content) // 50):
            file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            assert state_of(folder) != "whole"
            if state_of(folder) != f"damaged, {name} is not what was written":
                assert name == "place.json", "its words are JSON no more, or of other fields, or of another torch"
        return
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(content[: {"cut": len(content) // 2, "emptied": 0}[damage]])
    assert state_of(folder).startswith(f"damaged, {name} ")


def test_a_shorter_log_and_another_torch_are_told(folder):
    (folder / "events.jsonl").write_bytes(LOG[:-1])
    assert state_of(folder) == "damaged, events.jsonl is shorter than it was"
    (folder / "events.jsonl").unlink()
    assert state_of(folder) == "damaged, events.jsonl is missing"
    place = checkpoint_folder(folder) / "place.json"
    place.write_text(json.dumps(sealed({**json.loads(place.read_text()), "torch": "1.0"})))
    assert state_of(folder).startswith("of torch 1.0, this is ")
    assert read_progress(folder) is None
    place.write_text(json.dumps({"step": 3, "torch": "1.0"}))
    assert "of another version of the suite" in state_of(folder)
