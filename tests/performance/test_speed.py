"""The comparison with peers and the ladder: what they compare is what it should be, and they run."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vqa_model.picture_world.files import world_folder
from vqa_model.task import VQATask

VQA_V2 = 5.36  # questions per picture


@pytest.fixture(autouse=True)
def scripts(root, monkeypatch):
    monkeypatch.syspath_prepend(root / "performance")


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_the_interval_holds_the_median_and_is_symmetric_in_ranks(values):
    from intervals import median_interval

    low, middle, high = median_interval(values)
    assert low <= middle <= high
    assert {low, high} <= set(values)
    assert sum(value < low for value in values) <= len(values) // 2


@pytest.mark.parametrize(("number", "cut"), [(5, 0), (7, 0), (8, 0), (9, 1), (12, 2), (15, 3), (31, 9)])
def test_the_interval_has_the_ranks_of_the_tables(number, cut):
    from intervals import median_interval

    low, _, high = median_interval(range(number))
    assert (low, high) == (cut, number - 1 - cut)


def test_students_pictures_are_ours_up_to_rounding():
    from student import DecodingSet, collate_decoded

    known = VQATask().train_set()
    decoding = DecodingSet(known, world_folder() / "train2014", known.pixels.shape[-1])
    batch = collate_decoded([decoding[place] for place in (0, 7, 300)])
    ours = torch.from_numpy(np.array(known.pixels[known.rows[[0, 7, 300]]])) / 127.5 - 1
    assert (batch["pixel_values"] - ours).abs().max() < 1.01 * 2 / 255
    assert batch["picture_index"].tolist() == [0, 1, 2]
    assert batch["input_ids"].shape[1] == known.columns["input_ids"].shape[1], "padded to the full length"


def test_the_crowded_world_is_as_dense_as_vqa_v2_and_grouping_shares_its_pictures(tmp_path, monkeypatch):
    from crowded_world import SIZE, crowded_world
    from rungs import BATCH, RUNGS, Climber, Way

    monkeypatch.setenv("TUNEMATRIX_CACHE", str(tmp_path / "cache"))
    folder = crowded_world(tmp_path / "world", 60)
    with Image.open(next((folder / "train2014").glob("*.jpg"))) as picture:
        assert picture.size == SIZE
    task = VQATask(data=str(folder), max_length=24)
    items = task.train_set()
    assert len(items) / len({question.image_id for question in items.questions}) == pytest.approx(VQA_V2, rel=0.04)
    way = RUNGS["grouping"](RUNGS["picture cache"](RUNGS["batch size"](Way(scored=False))))
    batch = next(Climber(task, folder / "train2014", way)._batches)
    assert len(batch["picture_index"]) == BATCH
    assert len(batch["pixel_values"]) < BATCH / 3


def test_other_losses_are_not_reported_as_equal():
    from peers import compare_losses

    same = {"bare": [1.0, 2.0], "ours": [1.0, 2.0 + 1e-6], "student": [1.01, 2.0]}
    assert compare_losses(same)["ours"] == pytest.approx(5e-7)
    with pytest.raises(AssertionError, match="ours trains otherwise"):
        compare_losses(same | {"ours": [1.0, 2.01]})


def test_an_unknown_script_is_one_line(root):
    command = [sys.executable, "performance/everything.py", "--only", "peer"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("no script peer; there are: ")


@pytest.mark.slow
def test_peers_run_and_the_losses_are_equal(root):
    command = [sys.executable, "performance/everything.py", "--quick", "--only", "peers"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if line[:1] == "|"]
    table = {row[0]: row for row in rows}
    for recipe in ("full", "lora+amp"):
        assert len(table[f"tiny, {recipe}"]) == 10
        assert float(table[f"tiny, {recipe}"][-1]) <= 1e-4, "losses of ours and Trainer's against the bare loop's"


def test_a_gpu_is_needed_for_a_gpus_reference(root):
    command = [sys.executable, "performance/gpu_reference.py"]
    if torch.cuda.is_available():
        pytest.skip("there is one")
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "no NVIDIA GPU here: --small tries the command on the CPU, at a small size\n"


def test_recipes_of_the_gpu_reference_are_recipes():
    from gpu_reference import PARTS, request

    for part in PARTS:
        plans = request(part, Path("out")).plans
        assert len({named.plan for named in plans}) == len(part.recipes)
        assert part.steps * part.batch >= 1280


@pytest.mark.slow
def test_the_gpu_reference_runs_goes_on_and_says_what_came_out(root, tmp_path, forks, monkeypatch, capsys):
    from gpu_reference import main

    monkeypatch.chdir(root)
    before = signal.getsignal(signal.SIGALRM)
    assert main(str(tmp_path / "out"), 9.0, small=True) == 0
    rows = [line.split("|")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert [row[0].strip() for row in rows] == ["`full`", "`lora`"]
    assert all(float(row[4]) > 0 and float(row[14]) > 0 for row in rows), "questions per second, and a loss"
    assert main(str(tmp_path / "out"), 9.0, small=True) == 0
    signal.signal(signal.SIGALRM, before)
    assert "2 of 2 runs are finished already" in capsys.readouterr().out
    assert (tmp_path / "out" / "findings.md").read_text().count("`lora`") >= 1


@pytest.mark.parametrize("name", ["gpu-h100-80gb-hbm3", "gpu-h200"])
def test_findings_of_the_committed_gpu_sweeps_are_what_their_records_say(root, tmp_path, name):
    from gpu_findings import tell

    folder = root / "results" / name
    copy = tmp_path / folder.name
    copy.mkdir()
    for file in ("runs.csv", "metrics.csv"):
        (copy / file).write_text((folder / file).read_text())
    tell(copy)
    assert (copy / "findings.md").read_text() == (folder / "findings.md").read_text()


def test_neighbours_begin_when_a_run_trains_and_end_with_it(tmp_path):
    """What the limits of a disturbed run were measured beside."""
    from disturbance import KINDS, neighbours

    assert KINDS[0] == "nothing"
    with neighbours("nothing", tmp_path) as beside:
        assert beside.processes == []
    with neighbours("a burst of two", tmp_path) as beside:
        beside.event({"event": "section", "name": "warmup"})
        assert beside.processes == []
        beside.event({"event": "section", "name": "train"})
        burst = beside.processes
        assert [process.poll() for process in burst] == [None, None]
    assert None not in [process.poll() for process in burst]
