"""The answer vocabulary, from the training part only, and each question's targets over it.

Answers are the evaluator's normal forms of the majority answers. A question whose answer is not
in the vocabulary stays in training with a loss of zero and in evaluation with a score of at most
what its other answers give: hiding it would flatter the model.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from vqa_model.data.official_accuracy import ACCURACY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vqa_model.data.questions import Questions

NO_LABEL = -100


def build_vocabulary(*sets: Questions, min_count: int, max_answers: int) -> tuple[str, ...]:
    """Majority answers seen at least `min_count` times in all `sets`, most frequent first, at most `max_answers`."""
    counts: Counter[str] = Counter()
    for questions in sets:
        counted = np.bincount(questions.majority_forms).tolist()
        counts.update({form: n for form, n in zip(questions.pools.forms, counted, strict=False) if n})
    ranked = sorted(counts, key=lambda answer: (-counts[answer], answer))
    kept = tuple(answer for answer in ranked if answer and counts[answer] >= min_count)[:max_answers]
    if not kept:
        most = counts[ranked[0]] if ranked else 0
        raise ValueError(f"no answer occurs {min_count} times in training (the most frequent {most}); lower min_count")
    return kept


def targets(
    questions: Questions, index: Mapping[str, int]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
    """Label of the majority answer, and index and soft score of every known answer.

    index: place of each answer of the vocabulary. Gives labels (questions,), NO_LABEL where unknown, and indices and
    scores (questions, 10), zeros behind the last known answer.
    """
    label_of = np.array([index.get(form, NO_LABEL) for form in questions.pools.forms], dtype=np.int64)
    labels = np.sort(label_of[questions.answer_forms], axis=1)[:, ::-1]  # unknown ones last
    first = labels != np.roll(labels, 1, axis=1)
    first[:, 0] = True
    first &= labels != NO_LABEL
    counts = (labels[:, :, None] == labels[:, None, :]).sum(2)
    scores = np.where(first, np.array(ACCURACY)[counts], 0.0)
    order = np.argsort(~first, axis=1, kind="stable")
    known = [np.take_along_axis(column, order, 1) for column in (np.where(first, labels, 0), scores)]
    return label_of[questions.majority_forms], known[0], known[1].astype(np.float32)
