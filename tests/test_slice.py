"""The sample of VQA v2 that comes with the tests, and what they do where no larger slice of it is."""

import gzip
import importlib.util
import json
import os
import shutil
import subprocess
import sys

import pytest

VARIABLES = ("TUNEMATRIX_VQA_SLICE", "REQUIRE_SLICE", "PYTEST_ADDOPTS")
PROBE = """
import os

def test_first(slice_dir):
    assert str(slice_dir) == os.environ["TUNEMATRIX_VQA_SLICE"]

def test_second(root):
    assert not (root.parent / "shared").exists()
"""
OTHER = """
def test_of_another_file(slice_dir):
    assert slice_dir.is_dir()
"""


@pytest.fixture
def clone(root, tmp_path):
    """A folder like a stranger's clone, nothing beside it: the tests' set-up and tests, two of them of the slice."""
    folder = tmp_path / "alone" / "tunematrix"
    (folder / "tests").mkdir(parents=True)
    shutil.copy(root / "pyproject.toml", folder)
    shutil.copy(root / "tests" / "conftest.py", folder / "tests")
    (folder / "tests" / "test_probe.py").write_text(PROBE)
    (folder / "tests" / "test_other.py").write_text(OTHER)
    return folder


@pytest.fixture
def complete(root, tmp_path):
    """A folder that has every file a slice has."""
    folder = tmp_path / "whole"
    for name in ("train2014", "val2014", "extra"):
        (folder / name).mkdir(parents=True)
    for part in ("train", "val"):
        for name in (f"v2_OpenEnded_mscoco_{part}2014_questions", f"v2_mscoco_{part}2014_annotations"):
            (folder / f"{name}.json").touch()
    for name in ("official_eval_golden.json.gz", "official_norm_golden.json"):
        (folder / "extra" / name).touch()
    return folder


def run(clone, *more, **variables):
    """Run the clone's tests; gives the exit status and the lines printed."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES} | variables
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *more]
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), ("-n", "2")], ids=["one process", "two"])
def test_without_a_slice_one_line_says_how_many_were_skipped_and_why(clone, more):
    status, lines = run(clone, *more)
    assert status == 0, lines
    (line,) = [line for line in lines if "TUNEMATRIX_VQA_SLICE" in line]
    reason = "needs a real slice of VQA v2 with its pictures: set TUNEMATRIX_VQA_SLICE to its folder"
    assert line == f"SKIPPED [2] tests: {reason}"
    assert "1 passed, 2 skipped" in lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize("ci", ["", "true"])
def test_where_it_is_required_a_skip_is_a_failure(clone, ci):
    """Where ``CI`` is set pytest repeats the whole message in its summary; elsewhere it cuts it to the window."""
    status, lines = run(clone, REQUIRE_SLICE="1", CI=ci, COLUMNS="80")
    assert status == 1
    assert "1 passed, 2 errors" in lines[-1]
    needs = "needs a real slice of VQA v2 with its pictures"
    assert lines.count(f"{needs}: set TUNEMATRIX_VQA_SLICE to its folder, or REQUIRE_SLICE to 0") == 2, lines
    assert run(clone, REQUIRE_SLICE="0")[0] == 0


@pytest.mark.slow
def test_a_slice_that_is_named_is_used(clone, complete):
    status, lines = run(clone, TUNEMATRIX_VQA_SLICE=str(complete), REQUIRE_SLICE="1")
    assert status == 0, lines
    assert "3 passed" in lines[-1]


@pytest.mark.slow
@pytest.mark.parametrize("gone", ["", "train2014", "v2_mscoco_val2014_annotations.json"])
def test_a_slice_that_is_named_and_not_whole_is_one_line(clone, complete, gone):
    lost = complete / gone
    shutil.rmtree(lost) if lost.is_dir() else lost.unlink()
    status, lines = run(clone, TUNEMATRIX_VQA_SLICE=str(complete))
    assert status == 4
    what = f"has no {gone}" if gone else "is no folder"
    wanted = f"{complete} {what}; name the folder of a slice of VQA v2, or unset it"
    assert list(filter(None, lines)) == [f"ERROR: TUNEMATRIX_VQA_SLICE: {wanted}"]


def test_the_sample_is_small_and_says_whose_it_is(root):
    folder = root / "tests" / "data" / "vqa_v2"
    assert sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) < 300e3
    assert not [file for file in folder.rglob("*") if file.suffix in (".jpg", ".jpeg", ".png")]
    text = (folder / "README.md").read_text("utf-8")
    for word in ("Yash Goyal", "https://visualqa.org", "https://creativecommons.org/licenses/by/4.0/"):
        assert word in text
    for file in folder.glob("*.json.gz"):
        (row,) = [row for row in text.splitlines() if row.startswith(f"| `{file.name.partition('.')[0]}`")]
        assert row.endswith(f"| {file.stat().st_size:,} |")


def test_the_sample_is_what_its_script_draws(root, slice_dir):
    place = root / "tests" / "data" / "vqa_v2"
    spec = importlib.util.spec_from_file_location("draw", place / "draw.py")
    draw = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(draw)
    for name, content in draw.sample(slice_dir).items():
        assert json.loads(gzip.decompress((place / f"{name}.gz").read_bytes())) == content, name
