"""Chooses pictures: a fraction of them, and the tenth of the training pictures kept for tuning.

Both by one rule. Pictures are sorted by (number of questions, then how many of these are yes/no,
number and other), ties in a seeded random order, and every k-th is taken, starting at a seeded
place. So the choice has the same share of every kind of picture as the whole, to within one
picture per kind, and all questions on a picture stay together.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vqa_model.vqa_files import Question

_TYPES = ("yes/no", "number", "other")


def choose_images(questions: Iterable[Question], fraction: float, seed: int) -> frozenset[int]:
    """Image ids of `fraction` of the pictures, stratified by question count and answer types."""
    types: dict[int, Counter[str]] = {}
    for question in questions:
        types.setdefault(question.image_id, Counter())[question.answer_type] += 1
    rng = random.Random(f"{seed}/{fraction}")
    order = sorted(types)
    rng.shuffle(order)
    order.sort(key=lambda image: (types[image].total(), *(types[image][name] for name in _TYPES)))
    start = rng.random()
    return frozenset(
        image
        for place, image in enumerate(order)
        if int((place + 1) * fraction + start) > int(place * fraction + start)
    )
