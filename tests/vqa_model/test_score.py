import gzip
import json

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from vqa_model.vqa_score import CONTRACTIONS, accuracy, digits_and_articles, normalise, soft_targets, strip_punctuation

WORDS = st.text(alphabet="ab,.'-! 01the\n", max_size=12)


def test_normalisation_matches_the_official_one(slice_dir):
    for row in json.loads((slice_dir / "extra" / "official_norm_golden.json").read_text()):
        assert strip_punctuation(row["in"]) == row["punct"]
        assert digits_and_articles(row["in"]) == row["digit_article"]
        assert normalise(row["in"]) == row["full"]


def test_accuracy_matches_the_official_evaluator_bit_for_bit(slice_dir):
    with gzip.open(slice_dir / "extra" / "official_eval_golden.json.gz") as stream:
        golden = json.load(stream)
    answers = {}
    for part in ("train", "val"):
        content = json.loads((slice_dir / f"v2_mscoco_{part}2014_annotations.json").read_text())
        for row in content["annotations"]:
            answers[row["question_id"]] = [answer["answer"] for answer in row["answers"]]
    assert len(golden["predictions"]) > 1500
    for row in golden["predictions"]:
        ours = round(100 * accuracy(row["answer"], answers[row["question_id"]]), 2)
        assert ours == golden["per_question"][str(row["question_id"])], row


@pytest.mark.parametrize(("matching", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)])
def test_accuracy_counts_the_other_nine(matching, expected):
    answers = ["cat"] * matching + [f"dog {n}" for n in range(10 - matching)]
    assert accuracy("cat", answers) == pytest.approx(expected)


def test_nothing_is_normalised_when_all_ten_agree_to_the_letter():
    assert accuracy("Yes", ["yes"] * 10) == 0
    assert accuracy("Yes", ["yes"] * 9 + ["no"]) == 1
    assert accuracy(" yes\n", ["yes"] * 10) == 1


def test_contractions_have_the_published_shape():
    assert CONTRACTIONS["dont"] == "don't"
    assert CONTRACTIONS["couldnt've"] == CONTRACTIONS["couldn'tve"] == "couldn't've"
    assert "its" not in CONTRACTIONS
    assert "wed" not in CONTRACTIONS


@given(st.lists(WORDS, min_size=10, max_size=10), WORDS)
def test_accuracy_is_a_known_step_and_ignores_order(answers, prediction):
    before = list(answers)
    score = accuracy(prediction, answers)
    assert min(abs(score - step) for step in (0, 0.3, 0.6, 0.9, 1)) < 1e-9
    assert accuracy(prediction, answers[::-1]) == pytest.approx(score)
    assert answers == before


@given(st.lists(WORDS, min_size=10, max_size=10))
def test_soft_targets_are_the_accuracy_of_predicting_them(answers):
    normal = [normalise(answer) for answer in answers]
    assume([normalise(answer) for answer in normal] == normal)
    assert soft_targets(answers) == {answer: accuracy(answer, normal) for answer in normal}
