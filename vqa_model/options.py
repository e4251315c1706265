"""Checks of the task's options: type, choice and range, each refused in one line that says what fits.

They run when a task is made, before any file is read; what depends on a tower or on the data is
checked where that is known.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from vqa_model.fusions import parse_fusion
from vqa_model.towers import PRESETS

if TYPE_CHECKING:
    from vqa_model.task import VQATask

# transformers' words for it, kept in the saved model: a sigmoid for each answer, or one softmax over all
PROBLEM_TYPES = {"cross_entropy": "single_label_classification", "soft_bce": "multi_label_classification"}
CHOICES: dict[str, tuple[str, ...]] = {
    "model": tuple(PRESETS),
    "towers": ("pretrained", "random"),
    "objective": tuple(PROBLEM_TYPES),
    "vocabulary_from": ("train", "train+val"),
    "evaluate_on": ("eval", "tune"),
    "control": ("", "question-only", "majority-answer"),
}
LEAST = {"min_count": 1, "max_answers": 1, "image_size": 0}
SHORTEST_TEXT = 3  # a word piece between the two that open and close every question


def problem_type(objective: str, num_answers: int) -> str | None:
    """Give transformers' word for an objective; it knows none for a softmax over a single answer."""
    return None if objective == "cross_entropy" and num_answers == 1 else PROBLEM_TYPES[objective]


def check_options(task: VQATask) -> None:
    """Raise ValueError for the first option of a wrong type or value."""
    for field in fields(task):
        value, kind = getattr(task, field.name), type(field.default)
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits:
            raise ValueError(f"{field.name} {value!r} is of type {type(value).__name__}; it takes {kind.__name__}")
    for name, choices in CHOICES.items():
        value = getattr(task, name)
        if value not in choices:
            raise ValueError(f"{name} {value!r} is not known; choose from {', '.join(map(repr, choices))}")
    parse_fusion(task.fusion)
    if not 0 < task.fraction <= 1:
        raise ValueError(f"fraction {task.fraction} is not in (0, 1]; 0.25 takes a quarter of the training pictures")
    if not 0 <= task.eval_fraction <= 1:
        raise ValueError(f"eval_fraction {task.eval_fraction} is not in [0, 1]; 0.1 takes a tenth of the val pictures")
    for name, least in LEAST.items():
        if getattr(task, name) < least:
            raise ValueError(f"{name} {getattr(task, name)} is below {least}")
    if task.max_length and task.max_length < SHORTEST_TEXT:
        raise ValueError(f"max_length {task.max_length} is below {SHORTEST_TEXT}; 0 fits the training questions")
