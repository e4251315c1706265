"""Scores by hand on a small table, and their properties."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_recall_fscore_support

from bench.worker.scores import classification_scores

WORDS = ("b", "a", "B", "10", "9", "é", "a b")


def pairs(text):
    return [{"prediction": p, "target": t} for p, t in (word.split("/") for word in text.split())]


def test_by_hand():
    scores = classification_scores(pairs("a/a a/a a/b b/b c/b"))
    assert scores["accuracy"] == pytest.approx(3 / 5)
    assert scores["precision_macro"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert scores["recall_macro"] == pytest.approx((1 + 1 / 3 + 0) / 3)
    assert scores["recall_weighted"] == pytest.approx(3 / 5)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=30))
def test_properties(words):
    predictions = [{"prediction": p, "target": t} for p, t in words]
    scores = classification_scores(predictions)
    assert all(0 <= value <= 1 for value in scores.values())
    assert scores["recall_weighted"] == pytest.approx(scores["accuracy"])
    assert scores == classification_scores(predictions[::-1])


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(WORDS)), min_size=1, max_size=40))
def test_scores_are_those_of_the_words_themselves(words):
    scores = classification_scores([{"prediction": p, "target": t} for p, t in words])
    given_, true = [p for p, _ in words], [t for _, t in words]
    assert scores["accuracy"] == accuracy_score(true, given_)
    for average in ("macro", "weighted"):
        names = [f"{name}_{average}" for name in ("precision", "recall", "f1")]
        expected = precision_recall_fscore_support(true, given_, average=average, zero_division=0)[:3]
        assert [scores[name] for name in names] == list(expected)
