"""The official VQA accuracy, rule by rule (visualqa.org/evaluation), bit for bit.

Written from the published rules and held to outputs of the official evaluator by tests. One of its habits surprises:
nothing is normalised when all ten annotators agree to the letter.
"""

from __future__ import annotations

from collections import Counter
from statistics import fmean
from typing import TYPE_CHECKING, Any

from vqa_model.data.official_normalisation import clean, normalise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vqa_model.data.questions import Question


def accuracy(prediction: str, answers: Sequence[str]) -> float:
    """Official accuracy, 0..1, of one prediction against the ten annotators' answers."""
    distinct = set(answers)  # most of the ten are the same, and each is looked at once
    form = normalise if len({clean(answer) for answer in distinct}) > 1 else clean
    normal_form = form(prediction)
    return ACCURACY[sum(answers.count(answer) for answer in distinct if form(answer) == normal_form)]


def evaluate(
    predictions: Sequence[Mapping[str, Any]], questions: Mapping[int, Question]
) -> tuple[dict[str, float], dict[int, float]]:
    """Official accuracy in 0..1, overall, per answer and question type, and the score of each question by its id.

    predictions: rows with `id` and `prediction`; ValueError names one that repeats or is of no question.
    """
    counts = Counter(row["id"] for row in predictions)
    repeated = [question for question, count in counts.items() if count > 1]
    strange = [question for question in counts if question not in questions]
    for ids, what in ((repeated, "repeat a question"), (strange, "are of no evaluation or tune question")):
        if ids:
            raise ValueError(f"{len(ids)} predictions {what}, first id {ids[0]!r}; give one for each question")
    if not predictions:
        raise ValueError("no predictions to evaluate")
    scores: dict[int, float] = {}
    groups: dict[str, list[float]] = {"vqa_accuracy": []}
    for row in predictions:
        question = questions[row["id"]]
        score = scores[question.id] = accuracy(row["prediction"], question.answers)
        groups["vqa_accuracy"].append(score)
        groups.setdefault(f"vqa_accuracy/{question.answer_type}", []).append(score)
        groups.setdefault(f"vqa_accuracy/question_type/{question.question_type}", []).append(score)
    return {name: fmean(values) for name, values in groups.items()}, scores


def soft_targets(answers: Sequence[str]) -> dict[str, float]:
    """Score every normalised answer by how many of the ten gave it: 0.3, 0.6, 0.9 or 1."""
    return {answer: ACCURACY[count] for answer, count in Counter(map(normalise, answers)).items()}


# Accuracy by number of matching annotators: the mean over all ten of min(1, matches among the other nine / 3).
ACCURACY = tuple(fmean(min(1.0, (n - match) / 3) for match in [1] * n + [0] * (10 - n)) for n in range(11))
