"""The answers a model may give, and both losses over them, against the rules written out by hand on real answers."""

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModel

from vqa_model.data.answers import NO_LABEL, build_vocabulary
from vqa_model.data.official_normalisation import normalise
from vqa_model.data.questions import Question, build_questions
from vqa_model.task import VQATask

OBJECTIVES = {"cross_entropy": "single_label_classification", "soft_bce": "multi_label_classification"}
SOFT = (0.0, 0.3, 0.6, 0.9, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0)  # by how many of the ten gave the answer


def asked(words):
    return build_questions(Question(n, n, "what", (word,) * 10, word, "other", "what") for n, word in enumerate(words))


@given(
    st.lists(st.sampled_from(["cat", "Cat", "dog", "two", "2", "a", "the", "yes!", "yes"]), min_size=1),
    st.integers(1, 4),
    st.integers(1, 6),
)
def test_vocabulary_has_the_most_frequent_answers(words, min_count, max_answers):
    counts = Counter(normalise(word) for word in words)
    del counts[""]
    enough = sorted((answer for answer in counts if counts[answer] >= min_count), key=lambda a: (-counts[a], a))
    if enough:
        assert build_vocabulary(asked(words), min_count=min_count, max_answers=max_answers) == tuple(
            enough[:max_answers]
        )
    else:
        with pytest.raises(ValueError, match=f"no answer occurs {min_count} times"):
            build_vocabulary(asked(words), min_count=min_count, max_answers=max_answers)


@pytest.fixture(scope="module")
def task(vqa_sample):
    task = VQATask(data=str(vqa_sample))
    task.prepare()
    return task


def vocabulary(task):
    return tuple(task._config.id2label.values())


def test_vocabulary_by_size_alone_and_by_count_alone(task):
    counts = Counter(normalise(question.majority) for question in task.train_set().questions)
    by_size = vocabulary(replace(task, min_count=1, max_answers=100))
    assert len(by_size) == 100 < len(counts)
    assert min(counts[answer] for answer in by_size) >= max(counts[a] for a in counts if a and a not in by_size)
    assert set(vocabulary(replace(task, min_count=1, max_answers=10**6))) == set(counts) - {""}
    assert set(vocabulary(replace(task, min_count=5))) == {answer for answer in counts if counts[answer] >= 5}
    fifth = sum(count >= 5 for count in counts.values())
    assert vocabulary(replace(task, min_count=5, max_answers=fifth)) == vocabulary(replace(task, min_count=5))
    assert vocabulary(replace(task, min_count=5, max_answers=fifth - 1)) == vocabulary(replace(task, min_count=5))[:-1]


def test_an_answer_of_the_val_part_alone_is_not_in_it(tmp_path, write):
    write(tmp_path, "train", [(n, n, "what", ["cat"] * 10) for n in range(1, 31)])
    write(tmp_path, "val", [(n, n, "what", ["dog"] * 10) for n in range(101, 140)])
    assert vocabulary(VQATask(data=str(tmp_path), min_count=1)) == ("cat",)


def test_a_vocabulary_from_both_parts_is_in_the_models_fingerprint(tmp_path, write):
    write(tmp_path, "train", [(n, n, "what", ["cat"] * 10) for n in range(1, 31)])
    write(tmp_path, "val", [(n, n, "what", ["dog"] * 10) for n in range(101, 140)])
    task = VQATask(data=str(tmp_path))
    both = replace(task, vocabulary_from="train+val")
    assert vocabulary(both) == ("dog", "cat")
    assert both.model_fingerprint() != task.model_fingerprint()
    assert both.data_fingerprint() == task.data_fingerprint()
    with pytest.raises(ValueError, match="vocabulary_from 'val' is not known; choose from 'train', 'train\\+val'"):
        replace(task, vocabulary_from="val")


def by_hand(task, logits, rows):
    """Each question's loss and its gradient at the logits, in Python's doubles."""
    answers = vocabulary(task)
    losses, gradients = [], []
    for place, scores in zip(rows, logits.double().tolist(), strict=True):
        question = task.train_set().questions[place]
        given = Counter(normalise(answer) for answer in question.answers)
        if task.objective == "soft_bce":
            goals = [SOFT[given[answer]] for answer in answers]
            sure = [1 / (1 + math.exp(-score)) for score in scores]
            losses.append(-sum(t * math.log(p) + (1 - t) * math.log(1 - p) for t, p in zip(goals, sure, strict=True)))
        else:
            known = normalise(question.majority) in answers
            goals = [float(known and answer == normalise(question.majority)) for answer in answers]
            total = sum(map(math.exp, scores))
            sure = [math.exp(score) / total if known else 0.0 for score in scores]
            losses.append(-sum(t * math.log(p) for t, p in zip(goals, sure, strict=True) if t))
        gradients.append([p - t for t, p in zip(goals, sure, strict=True)])
    return losses, gradients


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_loss_and_gradient_are_those_of_the_rules(task, objective):
    task = replace(task, objective=objective)
    torch.manual_seed(0)
    model, items = task.build_model().eval(), task.train_set()
    labels = items.columns["label"]
    rows = list(range(40))
    assert 0 < (labels[rows] == NO_LABEL).sum() < 40
    seen = []

    def keep(_, __, logits):
        logits.retain_grad()
        seen.append(logits)

    model.head.register_forward_hook(keep)
    losses = task.loss(model, task.collate([items[place] for place in rows]))
    losses.sum().backward()
    (logits,) = seen
    expected, gradients = by_hand(task, logits.detach(), rows)
    assert losses.tolist() == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(logits.grad, torch.tensor(gradients), rtol=0, atol=1e-6)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_both_objectives_learn_and_the_saved_model_says_which(task, objective, tmp_path):
    task = replace(task, objective=objective)
    torch.manual_seed(0)
    model, items = task.build_model(), task.train_set()
    batch = task.collate([items[place] for place in range(32)])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = task.loss(model, batch).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
    model.eval().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["problem_type"] == OBJECTIVES[objective]
    again = AutoModel.from_pretrained(tmp_path).eval()
    one_of_many = again.config.problem_type == "single_label_classification"
    with torch.no_grad():
        logits = task._logits(again, batch)
    sure = (logits.softmax(-1) if one_of_many else logits.sigmoid()).amax(-1)
    assert [row["probability"] for row in task.predict(model, batch)] == pytest.approx(sure.tolist())


def test_the_objective_changes_no_fingerprint_and_one_answer_needs_no_type(task, tmp_path, write):
    assert replace(task, objective="soft_bce").model_fingerprint() == task.model_fingerprint()
    for name, first in (("train", 1), ("val", 101)):
        write(tmp_path, name, [(n, n, "what", ["cat"] * 10) for n in range(first, first + 30)])
    found = [VQATask(data=str(tmp_path), objective=name).build_model().config.problem_type for name in OBJECTIVES]
    assert found == [None, "multi_label_classification"]
