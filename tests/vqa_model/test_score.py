"""`python -m vqa_model.score` against the official evaluator's golden outputs, and everything that can be wrong."""

import json
import subprocess
import sys
import time

import pytest

from vqa_model.score import main


def official(annotations, per_question):
    """The summary as the official tool forms it, from accuracies that are not rounded yet."""
    steps = {0.0: 0.0, 30.0: 0.3, 60.0: 0.6, 90.0: 0.9, 100.0: 1.0}
    every, groups = [], {"perAnswerType": {}, "perQuestionType": {}}
    for row in annotations:
        value = steps[per_question[str(row["question_id"])]]
        every.append(value)
        groups["perAnswerType"].setdefault(row["answer_type"], []).append(value)
        groups["perQuestionType"].setdefault(row["question_type"], []).append(value)
    mean = lambda values: round(100 * sum(values) / len(values), 2)
    return {"overall": mean(every)} | {n: {k: mean(v) for k, v in g.items()} for n, g in groups.items()}


@pytest.fixture(scope="module")
def golden(vqa_sample):
    return json.loads((vqa_sample / "official_eval_golden.json").read_text("utf-8"))


def test_the_golden_files_bit_for_bit(vqa_sample, golden, tmp_path, capsys):
    questions = vqa_sample / "v2_OpenEnded_mscoco_train2014_questions.json"
    annotations = vqa_sample / "v2_mscoco_train2014_annotations.json"
    known = {row["question_id"]: row for row in json.loads(annotations.read_text("utf-8"))["annotations"]}
    predictions = [row for row in golden["predictions"] if row["question_id"] in known]
    (tmp_path / "r.json").write_text(json.dumps(predictions))
    files = ["--questions", questions, "--annotations", annotations, "--results", tmp_path / "r.json"]
    more = ["--per-question", tmp_path / "each.json", "--answered-only"]
    assert main([*map(str, files), *map(str, more)]) == 0
    out, error = capsys.readouterr()
    each = json.loads((tmp_path / "each.json").read_text())
    assert each == {str(row["question_id"]): golden["per_question"][str(row["question_id"])] for row in predictions}
    assert len(each) == len(golden["predictions"]) == 542
    scored = [known[row["question_id"]] for row in predictions]
    assert json.loads(out) == official(scored, golden["per_question"])
    assert f"left out {len(known) - len(predictions)} of {len(known)} questions" in error


def write(folder, results):
    (folder / "results.json").write_text(results if isinstance(results, str) else json.dumps(results))
    return folder / "results.json"


def run(data, results, *more):
    files = {
        "--questions": data / "v2_OpenEnded_mscoco_val2014_questions.json",
        "--annotations": data / "v2_mscoco_val2014_annotations.json",
        "--results": results,
    }
    return main([str(word) for pair in files.items() for word in pair] + list(more))


def answers(count=8):
    return [{"question_id": 10 * (101 + n // 2) + n % 2, "answer": "ab"[n % 2]} for n in range(count)]


def test_everything_right_is_a_hundred(data, tmp_path, capsys):
    assert run(data, write(tmp_path, answers())) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"overall": 100.0, "perAnswerType": {"other": 100.0}, "perQuestionType": {"what": 100.0}}


@pytest.mark.parametrize(
    ("results", "message"),
    [
        (answers(7), "1 of 8 questions have no result, the first 1041; answer all, or use --answered-only"),
        ([*answers(), {"question_id": 5, "answer": "a"}], "1 results are of no question here, the first of 5"),
        ([*answers(), answers()[2]], "record 8 answers question 1020 again"),
        ([{"question_id": "1010", "answer": "a"}], "record 0 has no number question_id and text answer"),
        ([{"question_id": 1010, "answer": 3}], "record 0 has no number question_id and text answer"),
        ([7], "record 0 has no number question_id"),
        ({}, "not a results file: a dict"),
        ("[{]", "damaged JSON at line 1 column 3"),
        ("", "damaged JSON at line 1 column 1"),
    ],
)
def test_bad_results_are_one_line(data, tmp_path, capsys, results, message):
    assert run(data, write(tmp_path, results)) == 2
    out, error = capsys.readouterr()
    assert not out
    assert error.startswith(f"vqa_model.score: {tmp_path}/results.json: ")
    assert message in error
    assert error.count("\n") == 1


def test_bad_files_are_one_line(data, tmp_path, capsys):
    (data / "v2_mscoco_val2014_annotations.json").write_text('{"annotations": [')
    assert run(data, write(tmp_path, answers())) == 2
    assert "annotations.json: JSON breaks off or is damaged at line 1" in capsys.readouterr().err
    assert run(data / "nowhere", write(tmp_path, answers())) == 2
    assert "file is missing" in capsys.readouterr().err


def test_some_answers_can_be_scored_alone(data, tmp_path, capsys):
    assert run(data, write(tmp_path, [*answers(2), {"question_id": 1040, "answer": "no"}]), "--answered-only") == 0
    out, error = capsys.readouterr()
    assert json.loads(out)["overall"] == 66.67
    assert error == "left out 5 of 8 questions, which have no result\n"
    assert run(data, write(tmp_path, []), "--answered-only") == 2
    assert "no results in it" in capsys.readouterr().err


def test_it_needs_neither_torch_nor_long(root):
    code = """
import sys
import vqa_model.score
try:
    vqa_model.score.main(["--help"])
except SystemExit:
    print("torch" in sys.modules)
"""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("False\n")
    assert "python -m vqa_model.score --questions" in done.stdout
    assert time.perf_counter() - started < 2
