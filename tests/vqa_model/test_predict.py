"""`python -m vqa_model.predict`: one picture, a folder, files of questions, and everything that can be wrong."""

import csv
import json
import subprocess
import sys
import time

import pytest
import torch

from vqa_model.predict import main
from vqa_model.task import VQATask


@pytest.fixture(scope="module")
def folder(small_world, tmp_path_factory):
    task = VQATask(data=str(small_world), min_count=1)
    place = tmp_path_factory.mktemp("models") / "model"
    torch.manual_seed(0)
    task.save_model(task.build_model(), place, {})
    return place


@pytest.fixture
def ask(folder, capsys):
    def run(*words):
        status = main(["--model", str(folder), *map(str, words)])
        return status, *capsys.readouterr()

    return run


def picture(small_world):
    return next((small_world / "val2014").iterdir())


def official(**fields):
    """One question in a file of VQA v2's."""
    row = {"question_id": 1, "image_id": 500_001, "question": "what"}
    return json.dumps({"data_subtype": "val2014", "questions": [row | fields]})


def test_one_picture_gives_a_table(ask, small_world):
    status, out, _ = ask("--image", picture(small_world), "--question", "What color is the star?", "--top", 3)
    assert status == 0
    rows = [line.rsplit(None, 2) for line in out.splitlines()]
    assert len(rows) == 3
    shares = [float(row[1]) for row in rows]
    assert shares == sorted(shares, reverse=True)
    assert {row[2] for row in rows} == {"%"}


def test_one_line_tells_of_long_questions_whose_end_is_not_read(ask, small_world, tmp_path):
    long = "is it red or " * 100
    status, _, error = ask("--image", picture(small_world), "--question", long)
    assert status == 0
    assert error.startswith("1 of 1 questions have more than the ")
    assert "'is it red or is it red" in error
    assert error.count("\n") == 1
    (tmp_path / "a.csv").write_text(
        f"image,question\n{f'{picture(small_world)},{long}{chr(10)}' * 2}{picture(small_world)},a\n"
    )
    assert ask("--questions", tmp_path / "a.csv")[2].startswith("2 of 3 questions have more")
    assert not ask("--image", picture(small_world), "--question", "Is it red?")[2]


def test_json_has_the_same(ask, small_world):
    status, out, _ = ask("--image", picture(small_world), "--question", "What color?", "--json")
    found = json.loads(out)
    assert status == 0
    assert len(found["answers"]) == 5
    assert found["question"] == "What color?"


def test_a_folder_of_pictures_is_asked_one_question(ask, small_world, tmp_path):
    status, out, _ = ask("--images", small_world / "val2014", "--question", "Is it red?", "--out", tmp_path / "a.csv")
    assert status == 0
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(list((small_world / "val2014").iterdir()))
    assert {row["question"] for row in rows} == {"Is it red?"}
    assert f"{len(rows)} answers" in out


def test_a_table_with_question_ids_becomes_official_results(ask, small_world, tmp_path):
    (tmp_path / "a.csv").write_text(f"image,question,question_id\n{picture(small_world)},what,007\n")
    status, *_ = ask("--questions", tmp_path / "a.csv", "--out", tmp_path / "r.json")
    assert status == 0
    assert [row["question_id"] for row in json.loads((tmp_path / "r.json").read_text())] == [7]


def test_one_id_twice_is_no_official_results(ask, small_world, tmp_path):
    (tmp_path / "a.csv").write_text("image,question,question_id\n" + f"{picture(small_world)},what,7\n" * 2)
    status, _, error = ask("--questions", tmp_path / "a.csv", "--out", tmp_path / "r.JSON")
    assert status == 2
    assert "question_id 7 comes 2 times" in error
    assert not (tmp_path / "r.JSON").exists()


def test_json_of_a_folder_is_a_list_even_of_one(ask, small_world, tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture(small_world).read_bytes())
    _, out, _ = ask("--images", tmp_path, "--question", "what", "--json")
    assert [row["question"] for row in json.loads(out)] == ["what"]


def test_official_questions_become_official_results(ask, small_world, tmp_path):
    file = small_world / "v2_OpenEnded_mscoco_val2014_questions.json"
    status, *_ = ask("--questions", file, "--images", small_world / "val2014", "--out", tmp_path / "r.json")
    assert status == 0
    results = json.loads((tmp_path / "r.json").read_text())
    questions = json.loads(file.read_text())["questions"]
    assert [row["question_id"] for row in results] == [row["question_id"] for row in questions]
    assert all(isinstance(row["answer"], str) for row in results)


@pytest.mark.parametrize(
    ("file", "lines"),
    [
        ("asked.csv", "\ufeffimage,question\n{0},Is it red?\n{0},How many?\n"),
        (
            "asked.jsonl",
            '{{"image": "{0}", "question": "Is it red?"}}\n\n{{"image": "{0}", "question": "How many?"}}\n',
        ),
    ],
)
def test_a_table_of_questions_names_pictures_beside_it(ask, small_world, tmp_path, file, lines):
    name = picture(small_world).name
    (tmp_path / file).write_text(lines.format(name), encoding="utf-8")
    (tmp_path / name).write_bytes(picture(small_world).read_bytes())
    status, out, _ = ask("--questions", tmp_path / file)
    assert status == 0
    assert [line.split()[0] for line in out.splitlines()] == [name, name]
    assert "How many?" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give --image and --question"),
        (["--image", "x.jpg"], "give --image and --question"),
        (["--image", "x.jpg", "--question", "a"], "x.jpg: picture is missing"),
        (["--images", "EMPTY", "--question", "a"], "nothing to ask about"),
        (["--questions", "EMPTY/no.csv"], "no such file"),
        (["--questions", "EMPTY/q.json", "--images", "EMPTY"], "no such file"),
        (["--questions", "EMPTY/q.json"], "also wants --images"),
        (["--image", "x.jpg", "--question", "a", "--out", "EMPTY/no/a.csv"], "no; make it first"),
        (["--image", "x.jpg", "--question", "a", "--out", "EMPTY/a.json"], "needs VQA v2's question ids; name a .csv"),
        (["--image", "x.jpg", "--question", "a", "--out", "EMPTY"], "a folder; name a file in it"),
        (["--image", "x.jpg", "--question", "a", "--out", "a.csv", "--json"], "--out and --json contradict each other"),
        (["--questions", "q.csv", "--question", "a"], "--questions and --question contradict each other"),
        (["--image", "x.jpg", "--images", "EMPTY", "--question", "a"], "--image and --images contradict each other"),
        (["--image", "EMPTY", "--question", "a"], "a folder; give it as --images"),
        (["--images", "GOOD", "--question", "a"], "no such folder; give one of pictures, or one picture as --image"),
        (["--images", "EMPTY/no", "--question", "a"], "no such folder"),
        (["--image", "GOOD", "--question", "a", "--top", "0"], "top 0 is below 1"),
        (["--image", "GOOD", "--question", " "], "question 1 of 1 has no words"),
        (["--image", "x.jpg", "--question", "a", "--device", "moon"], "device 'moon' cannot be used"),
    ],
)
def test_bad_input_is_one_line(ask, small_world, tmp_path, words, message):
    places = {"EMPTY": str(tmp_path), "GOOD": str(picture(small_world))}
    for name, place in places.items():
        words = [word.replace(name, place) for word in words]
    status, out, error = ask(*words)
    assert status == 2
    assert not out
    assert error.startswith("vqa_model.predict: ")
    assert message in error
    assert error.count("\n") == 1


def test_files_of_another_kind_are_named(ask, tmp_path):
    for name, content, message in (
        ("a.csv", "picture,question\n", "no column image; it needs image,question"),
        ("a.json", '{"questions": [{}]}', "not a VQA v2 questions file"),
        ("b.json", "{", "not a VQA v2 questions file"),
        ("short.csv", "image,question\na.jpg,what\nb.jpg\n", "line 3: no question"),
        ("blank.csv", "image,question\n,what\n", "line 2: no image"),
        ("a.jsonl", '{"image": "a.jpg"}\n', "line 1: no question"),
        ("b.jsonl", "[1]\n", "line 1: no image"),
        ("c.jsonl", "\n{\n", "line 2: not a JSON object"),
        ("ids.csv", "image,question,question_id\na.jpg,what,x\n", "question_id 'x' is not a number"),
        ("long.csv", f"image,question\na.jpg,{'a' * 200_000}\n", "field larger than field limit"),
        ("latin.csv", "image,question\na.jpg,été\n".encode("latin-1"), "not UTF-8 text at byte 21; save it as UTF-8"),
        ("latin.json", '{"questions": "é"}'.encode("latin-1"), "not UTF-8 text at byte 15"),
        ("deep.json", "[" * 100_000, "cannot be read: maximum recursion depth"),
        ("deep.jsonl", "[" * 100_000, "cannot be read: maximum recursion depth"),
        ("number.json", official(question=5), "record 0 has no number question_id and text"),
        ("id.json", official(question_id="x"), "record 0 has no number question_id and text"),
    ):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        status, _, error = ask("--questions", tmp_path / name, "--images", tmp_path)
        assert status == 2
        assert message in error
        assert name in error
        assert error.count("\n") == 1


def test_broken_pictures_are_left_out_by_name(ask, small_world, tmp_path):
    (tmp_path / "good.jpg").write_bytes(picture(small_world).read_bytes())
    (tmp_path / "bad.jpg").write_bytes(b"broken")
    status, _, error = ask("--images", tmp_path, "--question", "a")
    assert status == 2
    assert "bad.jpg: broken picture" in error
    status, out, error = ask("--images", tmp_path, "--question", "a", "--skip-bad-images")
    assert status == 0
    assert "%" in out
    assert "skipped: " not in out
    assert "skipped: " in error
    (tmp_path / "good.jpg").unlink()
    assert ask("--images", tmp_path, "--question", "a", "--skip-bad-images")[0] == 2


def test_help_is_quick_and_teaches(root):
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "vqa_model.predict", "--help"], cwd=root, capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - started < 2
    assert done.stdout.count("\n  python -m vqa_model.predict --model") == 4
