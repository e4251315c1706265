"""VQA v2 found in the nestings that people upload, and linked into the official layout."""

import shutil

import pytest

from vqa_model.find_data import main
from vqa_model.task import VQATask


@pytest.fixture
def mounted(small_world, tmp_path):
    """The world's files as data sets on Kaggle have them: texts in folders of their archives, pictures nested twice."""
    root = tmp_path / "input"
    for part in ("train", "val"):
        for kind, name in (("Questions", "OpenEnded_mscoco"), ("Annotations", "mscoco")):
            place = root / "vqa-v2" / f"v2_{kind}_{part.title()}_mscoco"
            place.mkdir(parents=True)
            shutil.copy(small_world / f"v2_{name}_{part}2014_{kind.lower()}.json", place)
        shutil.copytree(small_world / f"{part}2014", root / "coco" / f"{part}2014" / f"{part}2014")
    return root


def run(mounted, out):
    return main(["--root", str(mounted), "--out", str(out)])


def test_what_is_found_can_be_trained_on(mounted, tmp_path, capsys, small_world):
    assert run(mounted, tmp_path / "data") == 0
    printed = capsys.readouterr().out
    assert f"train2014: {mounted}/coco/train2014/train2014" in printed
    assert "missing" not in printed
    found, own = VQATask(data=str(tmp_path / "data")), VQATask(data=str(small_world))
    assert found.data_fingerprint() == own.data_fingerprint()
    assert all(path.is_symlink() for path in (tmp_path / "data").iterdir())


def test_a_second_call_refreshes_the_links(mounted, tmp_path):
    assert run(mounted, tmp_path / "data") == 0
    (mounted / "coco").rename(mounted / "pictures")
    assert run(mounted, tmp_path / "data") == 0
    assert (tmp_path / "data" / "val2014").resolve() == mounted / "pictures" / "val2014" / "val2014"


def test_what_is_gone_is_linked_no_longer(mounted, tmp_path, capsys):
    pairs = "v2_mscoco_val2014_complementary_pairs.json"
    (mounted / pairs).write_text("[]")
    assert run(mounted, tmp_path / "data") == 0
    assert pairs in {path.name for path in (tmp_path / "data").iterdir()}
    (mounted / pairs).rename(tmp_path / pairs)
    capsys.readouterr()
    assert run(mounted, tmp_path / "data") == 0
    assert f"not there, and not needed: {pairs}" in capsys.readouterr().out.splitlines()
    assert pairs not in {path.name for path in (tmp_path / "data").iterdir()}


def test_links_in_circles_and_to_nothing_do_no_harm(mounted, tmp_path, capsys):
    for name in ("again", "and-again"):
        (mounted / "coco" / name).symlink_to(mounted)
    (mounted / "v2_mscoco_val2014_annotations.json").symlink_to(tmp_path / "nothing")
    assert run(mounted, tmp_path / "data") == 0
    assert "largest of" not in capsys.readouterr().out


def test_the_larger_of_two_is_taken_and_said(mounted, tmp_path, capsys):
    few = mounted / "a-sample" / "train2014"
    few.mkdir(parents=True)
    shutil.copy(next((mounted / "coco" / "train2014" / "train2014").iterdir()), few)
    assert run(mounted, tmp_path / "data") == 0
    count = len(list((mounted / "coco" / "train2014" / "train2014").iterdir()))
    assert f"train2014/train2014, {count} pictures (the largest of 2; not {few})" in capsys.readouterr().out


def test_what_is_missing_is_told(mounted, tmp_path, capsys):
    shutil.rmtree(mounted / "coco" / "val2014")
    (mounted / "vqa-v2" / "v2_Annotations_Val_mscoco" / "v2_mscoco_val2014_annotations.json").unlink()
    assert run(mounted, tmp_path / "data") == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing")]
    assert len(lines) == 2
    assert "v2_mscoco_val2014_annotations.json; attach" in lines[0]
    assert "val2014/COCO_val2014_*.jpg" in lines[1]


def test_nothing_is_written_where_the_data_lies(mounted, tmp_path):
    before = sorted(mounted.rglob("*"))
    for path in [mounted, *before]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert run(mounted, tmp_path / "data") == 0
        assert sorted(mounted.rglob("*")) == before
    finally:
        for path in [mounted, *before]:
            path.chmod(0o755)


def test_a_task_finds_what_is_mounted(mounted, tmp_path, monkeypatch, small_world):
    monkeypatch.setenv("TUNEMATRIX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("vqa_model.data.mounted_files.mounted_data.__defaults__", (mounted,))
    task = VQATask(data="kaggle")
    assert task.data_fingerprint() == VQATask(data=str(small_world)).data_fingerprint()
    shutil.rmtree(mounted / "coco" / "val2014")
    with pytest.raises(ValueError, match=r"^--data kaggle: val2014 not found below [^\n]*$"):
        VQATask(data="kaggle").prepare()


def test_bad_input_is_one_line(mounted, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("important")
    for root, out, message in (
        (tmp_path / "nowhere", tmp_path / "data", "no such folder; on Kaggle attach"),
        (mounted, tmp_path / "mine", "holds files of its own"),
        (mounted, mounted / "coco" / "data", "where nothing is written"),
    ):
        assert run(root, out) == 2
        error = capsys.readouterr().err
        assert error.startswith("vqa_model.find_data: ")
        assert message in error
        assert error.count("\n") == 1
    assert (tmp_path / "mine" / "notes.txt").read_text() == "important"
