"""Where points are, seen from a line and from a polygon. Pixels; y grows downwards."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pipeline.run.events.shapes import ANCHORS, Point

Numbers = NDArray[np.float64]


def anchor_points(xyxy: Numbers, anchor: str) -> Numbers:
    """The anchor of each box: (n, 4) -> (n, 2)."""
    across, down = ANCHORS[anchor]
    return np.stack(
        [
            xyxy[:, 0] + across * (xyxy[:, 2] - xyxy[:, 0]),
            xyxy[:, 1] + down * (xyxy[:, 3] - xyxy[:, 1]),
        ],
        axis=1,
    )


def from_line(points: Numbers, line: Sequence[Point]) -> tuple[Numbers, Numbers]:
    """The distance of points from the straight line through two others, and where along it.

    points: (n, 2). The distance is positive on the left of who walks from the first point of the
    line to the second one. Where: 0 beside the first point, 1 beside the second one.
    """
    begin, end = np.asarray(line, np.float64)
    (dx, dy), (x, y) = end - begin, (points - begin).T
    length = np.hypot(dx, dy)
    return (dy * x - dx * y) / length, (dx * x + dy * y) / length**2


def from_outline(points: Numbers, polygon: Sequence[Point]) -> Numbers:
    """The distance of points from the outline of a polygon; positive inside, by the even-odd rule.

    points: (n, 2).
    """
    x, y = points.T
    corners = np.asarray(polygon, np.float64)
    inside = np.zeros(len(points), np.bool_)
    nearest = np.full(len(points), np.inf)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        dx, dy = x1 - x0, y1 - y0
        share = ((x - x0) * dx + (y - y0) * dy) / (dx * dx + dy * dy)
        share = np.clip(share, 0.0, 1.0)
        nearest = np.minimum(nearest, np.hypot(x - x0 - share * dx, y - y0 - share * dy))
        if dy:
            spans = (y0 > y) != (y1 > y)
            inside ^= spans & (x < x0 + (y - y0) / dy * dx)
    return np.where(inside, nearest, -nearest)
