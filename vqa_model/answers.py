"""The answer vocabulary, from the training part only, and each question's targets over it.

Answers are the evaluator's normal forms of the majority answers. A question whose answer is not
in the vocabulary stays in training with a loss of zero and in evaluation with a score of at most
what its other answers give: hiding it would flatter the model.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from vqa_model.vqa_score import normalise, soft_targets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vqa_model.vqa_files import Question

NO_LABEL = -100


def build_vocabulary(questions: Sequence[Question], *, min_count: int, max_answers: int) -> tuple[str, ...]:
    """Majority answers seen at least `min_count` times, most frequent first, at most `max_answers`."""
    counts = Counter(normalise(question.majority) for question in questions)
    ranked = sorted(counts, key=lambda answer: (-counts[answer], answer))
    kept = tuple(answer for answer in ranked if answer and counts[answer] >= min_count)[:max_answers]
    if not kept:
        most = counts[ranked[0]] if ranked else 0
        raise ValueError(f"no answer occurs {min_count} times in training (the most frequent {most}); lower min_count")
    return kept


def targets(question: Question, index: Mapping[str, int]) -> tuple[int, list[int], list[float]]:
    """Label of the majority answer (NO_LABEL if unknown), and index and soft score of every known answer."""
    soft = {index[answer]: score for answer, score in soft_targets(question.answers).items() if answer in index}
    return index.get(normalise(question.majority), NO_LABEL), list(soft), list(soft.values())
