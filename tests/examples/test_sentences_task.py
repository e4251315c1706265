"""The generated sentences are what the example says: no fact on two sides, and no answer without word order."""

import pytest

from examples.sentences_task import SentencesTask


def facts(items):
    return {item["id"] // 2 for item in items}


def test_no_fact_is_in_two_sets():
    task = SentencesTask()
    train, tune, evaluation = map(facts, (task.train_set(), task.tune_set(), task.eval_set()))
    assert (len(train), len(tune), len(evaluation)) == (300, 60, 88)
    assert not train & tune
    assert not (train | tune) & evaluation


def test_both_voices_have_one_answer_and_their_words_alone_do_not():
    items = SentencesTask().train_set()
    one, other = items[:2]
    assert one["animal"] == other["animal"]
    assert one["text"] != other["text"]
    bags = {}
    for item in items:
        bags.setdefault(" ".join(sorted(item["text"].split())), set()).add(item["animal"])
    assert max(map(len, bags.values())) == 2


def test_both_voices_count_only_together():
    predictions = [
        {"id": 0, "prediction": "cat", "target": "cat"},
        {"id": 1, "prediction": "dog", "target": "cat"},
        {"id": 2, "prediction": "owl", "target": "owl"},
        {"id": 3, "prediction": "owl", "target": "owl"},
    ]
    metrics, right = SentencesTask().evaluate(predictions)
    assert metrics == {"both_voices": 0.5}
    assert right == {0: 1.0, 1: 0.0, 2: 1.0, 3: 1.0}


@pytest.mark.parametrize("options", [{"limit": 10}, {"width": 30}])
def test_sizes_that_cannot_be_are_refused(options):
    with pytest.raises(ValueError, match="SentencesTask: "):
        SentencesTask(**options).prepare()
