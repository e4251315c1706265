"""Chooses pictures: a fraction of them, and the tenth of the training pictures kept for tuning.

Both by one rule. Groups of pictures are sorted by (number of pictures, of questions, of yes/no, number and other
ones), ties in a seeded random order, and every k-th is taken, starting at a seeded place. So the choice has the
same share of every kind of picture as the whole, and all questions on a picture stay together.

A group is one picture, unless balanced pairs are given (the same question on two pictures with different answers,
https://arxiv.org/abs/1612.00837). Each of a picture's five questions has its partner on another picture, so in VQA v2
nearly all pictures hang together and no sample can keep every pair whole. Groups of up to eight do what can be
done: they keep all pairs where pictures come in twos, and double the pairs kept of VQA v2.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from vqa_model.data.questions import Questions

TYPES = ("yes/no", "number", "other")
MAX_GROUP_SIZE = 8  # pictures; 32 would keep hardly more pairs and make the sample coarser


def choose_images(
    questions: Questions, fraction: float, seed: int, pairs: NDArray[np.int64] | None = None
) -> frozenset[int]:
    """Image ids of `fraction` of the pictures, stratified by question count and answer types.

    pairs: ids of questions that belong together, (pairs, 2); their pictures are kept together where they can be.
    """
    images, image_rows = np.unique(questions.image_ids, return_inverse=True)
    rng = random.Random(f"{seed}/{fraction}")
    groups = np.arange(len(images)) if pairs is None else group_images(questions, pairs, images, rng)
    kinds = np.array([_kind(name) for name in questions.pools.answer_types])[questions.answer_types]
    in_group = np.bincount(
        groups[image_rows] * (len(TYPES) + 1) + kinds, minlength=(groups.max() + 1) * (len(TYPES) + 1)
    )
    per_type = in_group.reshape(-1, len(TYPES) + 1)
    order = list(range(len(per_type)))
    rng.shuffle(order)
    shuffled = per_type[order]
    sizes = np.bincount(groups)[order]
    ranks = np.lexsort((*shuffled.T[-2::-1], shuffled.sum(1), sizes))
    ends = np.floor(np.arange(len(order) + 1) * fraction + rng.random())
    taken = np.zeros(len(order), dtype=bool)
    taken[np.array(order)[ranks[ends[1:] > ends[:-1]]]] = True
    return frozenset(images[taken[groups]].tolist())


def _kind(answer_type: str) -> int:
    return TYPES.index(answer_type) if answer_type in TYPES else len(TYPES)


def group_images(
    questions: Questions, pairs: NDArray[np.int64], images: NDArray[np.int64], rng: random.Random
) -> NDArray[np.int64]:
    """Number of each image's group, (images,): images joined by pairs, in random order, while groups stay small."""
    order = np.argsort(questions.ids)
    found = np.minimum(np.searchsorted(questions.ids, pairs, sorter=order), len(order) - 1)
    rows = order[found]
    known = (questions.ids[rows] == pairs).all(1)  # a pair may be with a question of which nothing is here
    joined = np.searchsorted(images, questions.image_ids[rows[known]]).tolist()
    rng.shuffle(joined)
    parent, size = list(range(len(images))), [1] * len(images)

    def root(image: int) -> int:
        while parent[image] != image:
            parent[image] = image = parent[parent[image]]
        return image

    for one, other in joined:
        first, second = root(one), root(other)
        if first != second and size[first] + size[second] <= MAX_GROUP_SIZE:
            parent[second] = first
            size[first] += size[second]
    return np.unique([root(image) for image in range(len(images))], return_inverse=True)[1]
