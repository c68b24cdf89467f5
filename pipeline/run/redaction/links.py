"""Which boxes are of which things: surely, or maybe."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import iou_of_pairs
from pipeline.run.redaction.rectangles import Boxes, centres, reached, sizes, touching
from pipeline.run.redaction.things import Things

Places = NDArray[np.intp]

_SURE_IOU = 0.4
"""From this overlap with where it is expected, a box is taken for the same thing."""

_FARTHEST_SIZES, _FARTHEST_SHARE, MOST_STEPS = 4.5, 0.16, 4
"""A thing of unknown speed goes so many of its sizes from an inferred frame to the next, or such a
share of the diagonal, and is followed for so many of them."""

_MOST_SIZE_RATIO, _MOST_LINKS = 3.0, 2
"""A thing changes its size so much at most; a new box is linked to so many earlier ones."""

_TURN_SECONDS = 0.15
"""So long a thing can have gone another way than straight to where it was found next."""


def sure_pairs(
    things: Things, boxes: Boxes, class_id: NDArray[np.int64], seconds: float
) -> tuple[Places, Places, NDArray[np.int64]]:
    """The places of things and of the boxes that they surely have now.

    And by which of its speeds each is there, or -1 if it is where it was.
    """
    expected = things.expected(seconds)
    way = np.abs(expected[:, 1, :] - expected[:, 0, :]).max(axis=-1, initial=0.0)
    has_left = things.is_moving & (way > sizes(things.box))
    around = np.concatenate((expected[..., :2].min(axis=1), expected[..., 2:].max(axis=1)), axis=1)
    rows, numbers = touching(around, boxes)
    same = things.class_id[rows] == class_id[numbers]
    rows, numbers = rows[same], numbers[same]
    found = boxes[numbers].astype(np.float32)
    overlap, speeds = np.zeros(len(rows)), np.full(len(rows), -1)
    for number in range(expected.shape[1]):
        where = expected[rows, number].astype(np.float32)
        iou = iou_of_pairs(where, found)
        iou = np.where(has_left[rows], 0, iou) if number == 0 else iou
        speeds[iou > overlap] = number - 1
        overlap = np.maximum(overlap, iou)
    # Of two finds that a third one follows equally well, it is the later one that goes on.
    order = np.lexsort((-things.seconds[rows], -np.round(overlap, 3)))
    pairs: dict[int, tuple[int, int]] = {}
    taken: set[int] = set()
    for place in order[overlap[order] >= _SURE_IOU].tolist():
        row, number = int(rows[place]), int(numbers[place])
        if row not in pairs and number not in taken:
            pairs[row] = number, place
            taken.add(number)
    found_numbers, places = np.array(list(pairs.values()), np.intp).reshape(-1, 2).T
    return np.array(list(pairs), np.intp), found_numbers, speeds[places]


def possible_pairs(
    missed: Things, new: Things, seconds: float, diagonal_px: float
) -> tuple[Places, Places]:
    """The places of missed things and of new ones that can be the same, nearest first.

    diagonal_px: of the frame.
    """
    expected = missed.expected(seconds)
    around = np.concatenate((expected[..., :2].min(axis=1), expected[..., 2:].max(axis=1)), axis=1)
    size, new_size = sizes(missed.box), sizes(new.box)
    most = _MOST_SIZE_RATIO * size
    steps = np.where(missed.is_moving, 1, missed.steps)
    reach = steps * np.minimum(_FARTHEST_SIZES * most, _FARTHEST_SHARE * diagonal_px)
    reach[~missed.is_moving & (missed.steps > MOST_STEPS)] = 0.0
    rows, numbers = touching(reached(around, np.maximum(reach, most)[:, None]), new.box)
    larger = np.maximum(size[rows], new_size[numbers])
    same = missed.class_id[rows] == new.class_id[numbers]
    same &= larger <= _MOST_SIZE_RATIO * np.minimum(size[rows], new_size[numbers])
    rows, numbers, larger = rows[same], numbers[same], larger[same]
    ways = centres(new.box)[numbers][:, None] - centres(expected)[rows]
    distance = np.hypot(ways[..., 0], ways[..., 1]).min(axis=1)
    farthest = missed.steps[rows] * np.minimum(
        _FARTHEST_SIZES * larger, _FARTHEST_SHARE * diagonal_px
    )
    unknown = (missed.steps[rows] <= MOST_STEPS) & (distance <= farthest)
    # It can have turned back in each direction.
    turned = np.abs(centres(expected[:, 1]) - centres(missed.box))[rows] + larger[:, None] / 2
    can_turn = seconds - missed.seconds[rows] <= _TURN_SECONDS
    can_turn &= (np.abs(ways[:, 0]) <= turned).all(axis=1)
    kept = np.where(missed.is_moving[rows], (distance <= larger) | can_turn, unknown)
    rows, numbers, distance = rows[kept], numbers[kept], (distance / larger)[kept]
    order = np.lexsort((rows, distance, numbers))
    rows, numbers = rows[order], numbers[order]
    first = np.searchsorted(numbers, numbers, "left")
    nearest = np.arange(len(numbers)) - first < _MOST_LINKS
    return rows[nearest], numbers[nearest]
