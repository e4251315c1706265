"""Labels stay clear of each other where there is room."""

from hypothesis import given, settings
from hypothesis import strategies as st

from report.figures.label_placement import box_around, overlap, place_labels

BOUNDS = (0.0, 0.0, 800.0, 800.0)


@settings(max_examples=25, deadline=None)
@given(st.sets(st.tuples(st.integers(2, 6), st.integers(2, 6)), min_size=1, max_size=8))
def test_no_overlap_and_inside_when_points_are_spread(cells):
    anchors = [(x * 100.0, y * 100.0) for x, y in sorted(cells)]
    sizes = [(60.0, 12.0)] * len(anchors)
    markers = [box_around(anchor, (8, 8)) for anchor in anchors]
    boxes = [
        box_around(centre, size)
        for centre, size in zip(place_labels(anchors, sizes, markers, BOUNDS), sizes, strict=True)
    ]
    for index, box in enumerate(boxes):
        assert overlap(box, BOUNDS) == (box[2] - box[0]) * (box[3] - box[1])
        assert not any(overlap(box, other) for other in boxes[:index] + markers)


def test_coinciding_points_get_separate_labels_beside_them():
    anchors, sizes = [(400.0, 400.0)] * 6, [(60.0, 12.0)] * 6
    boxes = [box_around(centre, (60.0, 12.0)) for centre in place_labels(anchors, sizes, [], BOUNDS)]
    assert not any(overlap(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
