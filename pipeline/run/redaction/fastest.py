"""How fast the fastest things of a clip go: as far as that, one that was found once can be."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import iou_of_pairs
from pipeline.run.redaction.found import FoundBoxes
from pipeline.run.redaction.rectangles import Boxes, centres, longer_sides, reached, touching

_FARTHEST_SIDES = 3.0
"""No thing goes further from an inferred frame to the next, in its longer sides."""

_STILL_IOU, _MOST_BEND, _MOST_RATIO = 0.2, 0.2, 1.5
"""A thing that overlaps itself so much is not fast; three finds are of one thing if the one in the
middle is so near to the middle of their way, as a share of that, and sizes differ so little."""


_AROUND = 4
"""A thing that stands still, and is missed in some frames, is found again in one of so many."""


def fastest_sides(frames: Iterable[FoundBoxes]) -> float:
    """The farthest way from one inferred frame to the next, in longer sides of the thing.

    0 if nothing leaves its own box: a way counts if three finds lie on it, in places where nothing
    of their class is found in the frames around.
    """
    before: deque[FoundBoxes] = deque(maxlen=3)
    farthest = 0.0
    for frame in _that_leave(frame for frame in frames if frame.inferred):
        before.append(frame)
        if len(before) == before.maxlen:
            farthest = max(farthest, _farthest_of(*before))
    return farthest


def _that_leave(frames: Iterable[FoundBoxes]) -> Iterator[FoundBoxes]:
    """Frames with those boxes only that overlap none of their class in the frames around."""
    window: deque[FoundBoxes | None] = deque(maxlen=2 * _AROUND + 1)
    for frame in chain(frames, repeat(None, _AROUND)):
        window.append(frame)
        if len(window) > _AROUND:
            middle = window[len(window) - 1 - _AROUND]
            if middle is not None:
                yield _without_still(middle, window)


def _without_still(frame: FoundBoxes, window: Iterable[FoundBoxes | None]) -> FoundBoxes:
    others = [other for other in window if other is not None and other is not frame]
    still = _stays(frame, others) if others else np.zeros(len(frame.xyxy), bool)
    return replace(frame, xyxy=frame.xyxy[~still], class_id=frame.class_id[~still])


def _farthest_of(first: FoundBoxes, second: FoundBoxes, third: FoundBoxes) -> float:
    a, b, c = (frame.xyxy.astype(np.float64) for frame in (first, second, third))
    rows, numbers = touching(reached(a, 2 * _FARTHEST_SIDES * longer_sides(a)[:, None]), c)
    same = first.class_id[rows] == third.class_id[numbers]
    same &= _similar(a[rows], c[numbers])
    a, c, a_class = a[rows[same]], c[numbers[same]], first.class_id[rows[same]]
    share = (second.seconds - first.seconds) / max(third.seconds - first.seconds, 1e-6)
    middle = a + (c - a) * share
    pairs, places = touching(middle, b)
    ways = centres(c[pairs]) - centres(a[pairs])
    way = np.hypot(ways[:, 0], ways[:, 1])
    bends = centres(b[places]) - centres(middle[pairs])
    in_line = np.hypot(bends[:, 0], bends[:, 1]) <= _MOST_BEND * way / 2
    in_line &= a_class[pairs] == second.class_id[places]
    in_line &= _similar(a[pairs], b[places])
    sides = np.maximum(longer_sides(a[pairs]), longer_sides(b[places]))
    step = way * max(share, 1 - share) / sides
    return float(step[in_line & (step <= _FARTHEST_SIDES)].max(initial=0.0))


def _stays(frame: FoundBoxes, around: Sequence[FoundBoxes]) -> NDArray[np.bool_]:
    """Which boxes of a frame overlap one of their class in the frames around."""
    boxes = frame.xyxy.astype(np.float64)
    others = np.concatenate([other.xyxy for other in around]).astype(np.float64)
    class_id = np.concatenate([other.class_id for other in around])
    rows, numbers = touching(boxes, others)
    same = frame.class_id[rows] == class_id[numbers]
    rows, numbers = rows[same], numbers[same]
    overlap = iou_of_pairs(boxes[rows].astype(np.float32), others[numbers].astype(np.float32))
    stays = np.zeros(len(boxes), bool)
    stays[rows[overlap > _STILL_IOU]] = True
    return stays


def _similar(a: Boxes, b: Boxes) -> NDArray[np.bool_]:
    """Whether pairs of boxes are about as large."""
    one, other = longer_sides(a), longer_sides(b)
    similar: NDArray[np.bool_] = np.maximum(one, other) <= _MOST_RATIO * np.minimum(one, other)
    return similar
