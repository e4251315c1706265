"""Places labels beside points without overlaps.

Every label tries a few distances in sixteen directions and takes the place that covers least: first the
crowded ones, then each again with all others placed. A dozen labels on a small figure need no more, and the
result is the same on every machine. Coordinates are pixels (or any one unit); a box is (x0, y0, x1, y1).
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Point = tuple[float, float]
Box = tuple[float, float, float, float]

DIRECTIONS: Final = 16
DISTANCES: Final = (0.5, 1.0, 1.8, 2.8, 4.0, 5.5)
PASSES: Final = 4
DISTANCE_COST: Final = 0.05
AMBIGUITY_COST: Final = 0.4


class Candidate(NamedTuple):
    """A place for a label and what speaks against it, whatever the other labels do: areas, then costs."""

    centre: Point
    box: Box
    covered: float
    outside: float
    distance_cost: float
    ambiguity: float


def box_around(centre: Point, size: Point) -> Box:
    """Box of `size` (width, height) around `centre`."""
    return (
        centre[0] - size[0] / 2,
        centre[1] - size[1] / 2,
        centre[0] + size[0] / 2,
        centre[1] + size[1] / 2,
    )


def overlap(one: Box, other: Box) -> float:
    """Area that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(width, 0.0) * max(height, 0.0)


def place_labels(anchors: Sequence[Point], sizes: Sequence[Point], blocked: Sequence[Box], bounds: Box) -> list[Point]:
    """Return centres of labels of `sizes` for `anchors`, clear of each other and of `blocked`, in `bounds`."""

    def crowding(index: int) -> float:
        near = (math.dist(anchors[index], other) for other in anchors)
        return sum(1 / (1 + distance) for distance in near)

    def evaluate(index: int, centre: Point, distance: float) -> Candidate:
        box = box_around(centre, sizes[index])
        own = _distance(anchors[index], box)
        ambiguity = any(_distance(a, box) <= own for a in anchors if a != anchors[index])
        outside = 3 * (sizes[index][0] * sizes[index][1] - overlap(box, bounds))
        covered = sum(overlap(box, other) for other in blocked)
        return Candidate(centre, box, covered, outside, DISTANCE_COST * distance, AMBIGUITY_COST * ambiguity)

    def cost(index: int, candidate: Candidate) -> float:
        labels = sum(2 * overlap(candidate.box, other.box) for o, other in placed.items() if o != index)
        covered = candidate.covered + labels + candidate.outside
        return covered / (sizes[index][0] * sizes[index][1]) + candidate.distance_cost + candidate.ambiguity

    candidates = [
        [evaluate(index, centre, distance) for distance, centre in _candidates(anchor, sizes[index])]
        for index, anchor in enumerate(anchors)
    ]
    placed: dict[int, Candidate] = {}
    order = sorted(range(len(anchors)), key=lambda index: (-crowding(index), index))
    for _ in range(PASSES):
        for index in order:
            placed[index] = min(candidates[index], key=partial(cost, index))
    return [placed[index].centre for index in range(len(anchors))]


def _distance(point: Point, box: Box) -> float:
    return math.hypot(max(box[0] - point[0], 0.0, point[0] - box[2]), max(box[1] - point[1], 0.0, point[1] - box[3]))


def _candidates(anchor: Point, size: Point) -> Iterator[tuple[float, Point]]:
    """Yield (distance in label heights, centre), near ones first; each box stays clear of its own anchor."""
    for distance in DISTANCES:
        for step in range(DIRECTIONS):
            across, up = math.cos(2 * math.pi * step / DIRECTIONS), math.sin(2 * math.pi * step / DIRECTIONS)
            gap = distance * size[1]
            stretch = max(abs(across), abs(up))
            yield (
                distance,
                (
                    anchor[0] + across * gap + across / stretch * size[0] / 2,
                    anchor[1] + up * gap + up / stretch * size[1] / 2,
                ),
            )
