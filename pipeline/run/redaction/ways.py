"""Ways of things: where boxes are some time later, and between two finds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.run.redaction.rectangles import Boxes, centres, hull, sizes
from pipeline.run.redaction.things import Seconds

SHORT_SECONDS = 0.21
"""For so long a thing goes on as it did: it is not covered where it would be at another speed."""

SPEED_MARGIN = 0.25


def moved(box: Boxes, speed: Boxes, seconds: Seconds) -> Boxes:
    """Where boxes (N, 4) are after so many seconds (N,), at the speeds of their edges (N, 4).

    One edge only moves of a thing that comes into the frame or leaves it: at first, it is covered
    where it is by each of the two.
    """
    ways = speed * seconds[:, None]
    middle = np.tile((ways[:, :2] + ways[:, 2:]) / 2, 2)
    is_soon = (seconds <= SHORT_SECONDS * (1 + SPEED_MARGIN))[:, None]
    begin = np.where(is_soon, np.tile(ways[:, :2], 2), middle)
    return hull(box + begin, box + np.where(is_soon, np.tile(ways[:, 2:], 2), middle))


def between(a: Boxes, b: Boxes, share: Seconds) -> Boxes:
    """Boxes on the straight way from a to b (N, 4), as large as the larger one of the two."""
    larger = np.maximum(a[:, 2:] - a[:, :2], b[:, 2:] - b[:, :2])
    return with_sides(a + (b - a) * share[:, None], larger)


def with_sides(box: Boxes, sides_wh: Boxes) -> Boxes:
    """Boxes (N, 4) enlarged to hold any of these sides (N, 2) that share an edge with them."""
    return np.concatenate(
        (
            np.minimum(box[:, :2], box[:, 2:] - sides_wh),
            np.maximum(box[:, 2:], box[:, :2] + sides_wh),
        ),
        axis=1,
    )


def short_ways(a: Boxes, b: Boxes, seconds: Seconds) -> NDArray[np.bool_]:
    """Whether things went so fast, in so short a time, that the straight way is covered only."""
    way = centres(b) - centres(a)
    is_fast: NDArray[np.bool_] = np.hypot(way[:, 0], way[:, 1]) > np.maximum(sizes(a), sizes(b))
    return is_fast & (seconds <= SHORT_SECONDS)
