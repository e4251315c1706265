"""Accuracy, precision, recall and F1 of single-label predictions, over the whole set at once (scikit-learn).

Precision and recall of a class that is never predicted, or never right, count as zero. Classes are those that
occur among targets or predictions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def classification_scores(predictions: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Scores of `prediction` against `target`, each 0 to 1; macro and weighted means are named as such."""
    from sklearn.metrics import precision_recall_fscore_support

    targets = [str(p["target"]) for p in predictions]
    answers = [str(p["prediction"]) for p in predictions]
    scores = {"accuracy": sum(map(str.__eq__, targets, answers)) / len(targets)}
    number = {answer: index for index, answer in enumerate(sorted({*targets, *answers}))}  # sorts faster than words
    true, given = [number[answer] for answer in targets], [number[answer] for answer in answers]
    for average in ("macro", "weighted"):
        precision, recall, f1, _ = precision_recall_fscore_support(true, given, average=average, zero_division=0)
        scores |= {
            f"precision_{average}": float(precision),
            f"recall_{average}": float(recall),
            f"f1_{average}": float(f1),
        }
    return scores
