"""Checks of the task's options: type, choice and range, each refused in one line that says what fits.

They run when a task is made, before any file is read; what depends on a tower or on the data is
checked where that is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqa_model.modeling.fusion.registry import parse_fusion
from vqa_model.modeling.towers import PRESETS

if TYPE_CHECKING:
    from collections.abc import Mapping

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
MINIMUM = {"min_count": 1, "max_answers": 1, "image_size": 0}
SHORTEST_TEXT = 3  # a word piece between the two that open and close every question


def problem_type(objective: str, num_answers: int) -> str | None:
    """Give transformers' word for an objective; it knows none for a softmax over a single answer."""
    return None if objective == "cross_entropy" and num_answers == 1 else PROBLEM_TYPES[objective]


def check_options(options: Mapping[str, Any], defaults: Mapping[str, Any]) -> None:
    """Raise ValueError for the first option of another type than its default's, or of a value that does not fit."""
    for name, value in options.items():
        kind = type(defaults[name])
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits:
            raise ValueError(f"{name} {value!r} is of type {type(value).__name__}; it takes {kind.__name__}")
    for name, choices in CHOICES.items():
        if options[name] not in choices:
            raise ValueError(f"{name} {options[name]!r} is not known; choose from {', '.join(map(repr, choices))}")
    parse_fusion(options["fusion"])
    if not 0 < options["fraction"] <= 1:
        raise ValueError(
            f"fraction {options['fraction']} is not in (0, 1]; 0.25 takes a quarter of the training pictures"
        )
    if not 0 <= options["eval_fraction"] <= 1:
        raise ValueError(
            f"eval_fraction {options['eval_fraction']} is not in [0, 1]; 0.1 takes a tenth of the val pictures"
        )
    for name, least in MINIMUM.items():
        if options[name] < least:
            raise ValueError(f"{name} {options[name]} is below {least}")
    if options["max_length"] and options["max_length"] < SHORTEST_TEXT:
        raise ValueError(f"max_length {options['max_length']} is below {SHORTEST_TEXT}; 0 fits the training questions")
