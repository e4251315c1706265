"""Writes the names of points into a figure: measures texts, lets `label_placement` place them, adds leader lines."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from report.figures.label_placement import place_labels
from report.figures.style import freeze_layout, wrap_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.text import Annotation

    from report.figures.label_placement import Box, Point

MARKER_POINTS: Final = 7.0
LINE_POINTS: Final = 2.0
LEADER_POINTS: Final = 7.0


def name_points(axes: Axes, points: pd.DataFrame, texts: list[Annotation]) -> None:
    """Name the `named` rows of `points` clear of markers, whiskers, the front and the given texts."""
    named = points[points["named"]]
    anchors = [(float(x), float(y)) for x, y in zip(named["x"], named["y"], strict=True)]
    names = [_name(axes, label, anchor) for label, anchor in zip(named["label"], anchors, strict=True)]
    figure = axes.get_figure(root=True)
    assert figure is not None
    freeze_layout(figure)
    pixel = figure.dpi / 72
    boxes = [name.get_window_extent() for name in names]
    spots = _pixels(axes, anchors)
    blocked = [_box(text) for text in texts]
    blocked += [_around(spot, spot, MARKER_POINTS * pixel) for spot in spots]
    ends = _pixels(axes, _segments(points))
    blocked += [_around(start, end, LINE_POINTS * pixel) for start, end in zip(ends[::2], ends[1::2], strict=True)]
    bounds = axes.bbox
    limits = (float(bounds.x0), float(bounds.y0), float(bounds.x1), float(bounds.y1))
    centres = place_labels(spots, [(box.width + 3, box.height + 1) for box in boxes], blocked, limits)
    for name, box, spot, centre in zip(names, boxes, spots, centres, strict=True):
        name.set_position(((centre[0] - spot[0]) / pixel, (centre[1] - spot[1]) / pixel))
        half = np.array([box.width / 2, box.height / 2])
        edge = np.clip(np.array(spot), centre - half, centre + half)
        if np.hypot(*(edge - spot)) > LEADER_POINTS * pixel:
            line = axes.transData.inverted().transform(np.array([spot, edge]))
            axes.plot(*line.T, color="#888888", linewidth=0.5, zorder=3)


def _name(axes: Axes, label: str, anchor: Point) -> Annotation:
    style: dict[str, Any] = {"ha": "center", "va": "center", "linespacing": 0.95}
    return axes.annotate(wrap_label(label), anchor, xytext=(0, 0), textcoords="offset points", fontsize=6.5, **style)


def _segments(points: pd.DataFrame) -> list[Point]:
    """Return the ends, one after the other, of the lines to keep clear of: the front's stairs and the whiskers."""
    front = points[points["front"]].sort_values("x")
    stairs = list(zip(front["x"], front["y"], strict=True))
    ends = []
    for (x, y), (next_x, next_y) in pairwise(stairs):
        ends += [(x, y), (next_x, y), (next_x, y), (next_x, next_y)]
    for row in points[points["named"] & (points["num_ok"] > 1)].to_dict("records"):
        ends += [(row["x_low"], row["y"]), (row["x_high"], row["y"])]
        ends += [(row["x"], row["y_low"]), (row["x"], row["y_high"])]
    return ends


def _pixels(axes: Axes, data: list[Point]) -> list[Point]:
    placed = axes.transData.transform(np.array(data, dtype=float).reshape(-1, 2))
    return [(float(x), float(y)) for x, y in placed]


def _box(text: Annotation) -> Box:
    box = text.get_window_extent()
    return (float(box.x0), float(box.y0), float(box.x1), float(box.y1))


def _around(start: Point, end: Point, size: float) -> Box:
    """Box around an upright or level line (or a point, twice), `size` wide."""
    across, up = sorted((start[0], end[0])), sorted((start[1], end[1]))
    return (across[0] - size / 2, up[0] - size / 2, across[1] + size / 2, up[1] + size / 2)
