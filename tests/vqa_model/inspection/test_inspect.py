"""What `vqa_model.inspect` counts, prints, draws and refuses."""

import json
import subprocess
import sys
import time

import pytest
from PIL import Image

from vqa_model.data.answers import build_vocabulary
from vqa_model.data.official_accuracy import accuracy
from vqa_model.data.questions import Question, build_questions
from vqa_model.inspect import main
from vqa_model.inspection.facts import agreement, coverage, words_of

FIGURES = ("answer_types", "top_answers", "coverage", "question_lengths", "agreement", "picture_sizes")


def asked(number, answers, text="what is this", kind="other"):
    return Question(number, number, text, tuple(answers), answers[0], kind, "what")


@pytest.fixture
def facts(data, write, tmp_path, capsys):
    """Facts of a small data set, and what was printed."""
    write(data, "val", [(7000 + n, n, "how many red cats", ["a"] * 7 + ["yes"] * 3) for n in range(101, 105)])
    assert main([str(data), "--json", str(tmp_path / "facts.json"), "--plots", str(tmp_path / "plots")]) == 0
    return json.loads((tmp_path / "facts.json").read_text()), capsys.readouterr().out


def test_facts_are_those_of_the_files(facts, tmp_path):
    (train, val), printed = facts[0].values(), facts[1]
    assert (train["questions"], train["pictures"]["asked about"], val["questions"]) == (60, 30, 4)
    assert train["answer types"] == {"other": 1.0}
    assert train["top answers"] == {"": 0.5, "b": 0.5}  # "a" is an article, which the evaluator leaves out
    assert val["agreement"]["gave the majority answer"][7] == 1
    assert val["agreement"]["always yes"] == pytest.approx(0.9)
    assert val["words"]["begin with"] == {"how many": 1.0}
    assert val["words"]["longest"] == 4
    assert train["pictures"]["sizes"] == [["20 × 16", 30]]
    assert train["pairs"] is None
    for text in ("train: 60 questions on 30 pictures", "20 × 16", "(nothing)  50.0 %", "missing 0"):
        assert text in printed
    for name in FIGURES:
        with Image.open(tmp_path / "plots" / f"{name}.png") as picture:
            assert picture.width == 630
        assert (tmp_path / "plots" / f"{name}.svg").read_text().startswith("<?xml")


def test_coverage_is_counted_over_the_training_answers():
    train = build_questions(asked(n, [word] * 10) for n, word in enumerate(["cat"] * 5 + ["dog"] * 3 + ["Cow"]))
    val = build_questions(asked(n, [word] * 10) for n, word in enumerate(["dog", "cow", "bird", "cat"]))
    found = coverage(train, val)
    assert found["by size"] == {"3": 0.75}
    assert found["by count"]["1"] == {"answers": 3, "share": 0.75}
    assert found["by count"]["3"] == {"answers": 2, "share": 0.5}
    assert found["by count"]["9"] == {"answers": 0, "share": 0.0}


def test_coverage_is_that_of_the_vocabulary_a_model_gets():
    words = [f"word{number:03}" for number in range(150, 0, -1)]  # ties, the last of the alphabet first
    train = build_questions(asked(n, [word] * 10) for n, word in enumerate([*words, "the", "the"]))
    val = build_questions(asked(n, [word] * 10) for n, word in enumerate(["word100", "word101", "the", "word001"]))
    kept = build_vocabulary(train, min_count=1, max_answers=100)
    assert coverage(train, val)["by size"] == {"100": sum(q.majority in kept for q in val) / 4, "150": 0.75}
    assert coverage(train, train)["by count"]["2"] == {"answers": 0, "share": 0.0}


def test_every_part_is_compared_on_the_top_answers_of_training(data, write, tmp_path):
    own = [f"own{n // 2}" for n in range(60)]  # thirty answers of its own, each twice, and "b" once
    write(data, "val", [(7000 + n, 101, "what is it", [word] * 10) for n, word in enumerate([*own, "b"])])
    assert main([str(data), "--json", str(tmp_path / "f.json")]) == 0
    val = json.loads((tmp_path / "f.json").read_text())["val"]
    assert "b" not in val["top answers"]
    assert len(val["top answers"]) == 20
    assert val["top answers of the vocabulary"] == {"": 0.0, "b": pytest.approx(1 / 61)}
    assert val["distinct majority answers"] == 31


@pytest.mark.slow
@pytest.mark.parametrize(("gone", "left"), [("train", "val"), ("val", "train")])
def test_one_part_alone_is_inspected(data, tmp_path, capsys, gone, left):
    for file in data.glob(f"v2_*_{gone}2014_*.json"):
        file.unlink()
    assert main([str(data), "--json", str(tmp_path / "f.json"), "--plots", str(tmp_path / "plots")]) == 0
    assert f"{gone}: no questions and annotations in {data}" in capsys.readouterr().out
    facts = json.loads((tmp_path / "f.json").read_text())
    assert list(facts) == [left]
    assert facts[left]["coverage"]["by count"]["1"] == {"answers": 1, "share": 0.5}
    assert len(list((tmp_path / "plots").iterdir())) == 2 * len(FIGURES)


def test_half_a_part_is_an_error(data, capsys):
    (data / "v2_mscoco_val2014_annotations.json").unlink()
    assert main([str(data)]) == 2
    assert "v2_mscoco_val2014_annotations.json: file is missing" in capsys.readouterr().err


def test_a_header_that_claims_too_much_is_broken(data, capsys):
    picture = data / "val2014" / "COCO_val2014_000000000101.jpg"
    claimed = picture.read_bytes().replace(bytes([0, 16, 0, 20]), bytes([255, 255, 255, 255]), 1)
    picture.write_bytes(claimed)
    assert main([str(data)]) == 0
    assert f"broken: {picture.name}: " in capsys.readouterr().out


def test_agreement_is_the_official_accuracy_of_people():
    questions = build_questions([asked(1, ["cat"] * 4 + ["dog"] * 3 + ["Yes", "yes", "no"]), asked(2, ["yes"] * 10)])
    found = agreement(questions)
    assert found["gave the majority answer"][4] == found["gave the majority answer"][10] == 0.5
    assert found["always yes"] == pytest.approx((accuracy("yes", questions[0].answers) + 1) / 2)
    people = [
        min(1, sum(a == b for b in "ccccdddyyn") - 1) and min(1, ("ccccdddyyn".count(a) - 1) / 3) for a in "ccccdddyyn"
    ]
    assert found["one person against the others"] == pytest.approx((sum(people) / 10 + 1) / 2)


def test_lengths_are_of_questions_not_of_distinct_texts():
    questions = build_questions(
        [asked(n, ["a"] * 10, text) for n, text in enumerate(["is it red", "is it red", "what"])]
    )
    found = words_of(questions)
    assert found["mean"] == pytest.approx(7 / 3)
    assert found["histogram"] == [0, 1, 0, 2]
    assert found["begin with"] == {"is it": pytest.approx(2 / 3), "what": pytest.approx(1 / 3)}


def test_missing_and_broken_pictures_are_named(data, capsys):
    (data / "train2014" / "COCO_train2014_000000000007.jpg").unlink()
    broken = data / "train2014" / "COCO_train2014_000000000008.jpg"
    Image.effect_noise((64, 64), 90).save(broken)
    broken.write_bytes(broken.read_bytes()[:-900])
    assert main([str(data)]) == 0
    assert "missing 1; broken 0 of 29 looked at" in capsys.readouterr().out
    assert main([str(data), "--all"]) == 0
    out = capsys.readouterr().out
    assert "missing: COCO_train2014_000000000007.jpg" in out
    assert "broken: COCO_train2014_000000000008.jpg: broken picture" in out


def test_balanced_pairs_are_counted(small_world, tmp_path):
    assert main([str(small_world), "--json", str(tmp_path / "f.json")]) == 0
    pairs = json.loads((tmp_path / "f.json").read_text())["train"]["pairs"]
    assert pairs["both here"] == pairs["pairs"] > 50
    assert pairs["questions with a partner"] == 1
    assert pairs["answers differ"] == 1


def test_real_questions(vqa_sample, tmp_path, capsys):
    assert main([str(vqa_sample), "--json", str(tmp_path / "f.json")]) == 0
    train, val = json.loads((tmp_path / "f.json").read_text()).values()
    assert (train["questions"], val["questions"]) == (761, 97)
    assert train["answer types"] == pytest.approx({"other": 306 / 761, "number": 245 / 761, "yes/no": 210 / 761})
    assert train["pictures"]["looked at"] == 355
    assert train["pictures"]["grey"] == 30 / 355
    assert train["words"]["begin with"]["what is"] > 0.1
    assert 0.6 < train["agreement"]["one person against the others"] < 0.95
    assert "val: 97 questions" in capsys.readouterr().out


def test_the_whole_slice(slice_dir, tmp_path, capsys):
    assert main([str(slice_dir), "--json", str(tmp_path / "f.json")]) == 0
    train = json.loads((tmp_path / "f.json").read_text())["train"]
    assert train["questions"] == 3597
    assert train["answer types"]["other"] == pytest.approx(1270 / 3597)
    assert train["pictures"]["looked at"] == 2000
    assert train["pictures"]["grey"] < 0.02
    assert 0.6 < train["agreement"]["one person against the others"] < 0.95
    assert "val: 97 questions" in capsys.readouterr().out


@pytest.mark.parametrize("folder", ["nowhere", "data"])
def test_bad_folders_are_one_line(data, capsys, folder):
    (data / "v2_mscoco_val2014_annotations.json").write_text("{")
    assert main([str(data.parent / folder)]) == 2
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith("vqa_model.inspect: ")
    assert error.count("\n") == 1


def test_help_is_quick(root):
    started = time.perf_counter()
    command = [sys.executable, "-m", "vqa_model.inspect", "--help"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert time.perf_counter() - started < 2
    assert "--plots" in done.stdout
