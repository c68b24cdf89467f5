"""Ids of the boxes between two inferred frames: those of the pair that each comes from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import NO_TRACK, Detections, iou_matrix

_MOST_APART_PX = 0.05
_MOST_APART_CONFIDENCE = 0.001
"""What rounding in three lines can add up to."""

_FARTHEST_SIZES = 8.5
"""Boxes further apart are never a pair: see `frames.links`."""


class Between:
    """The frames between two inferred ones, whose boxes have ids.

    before, after: all boxes of the two, weak ones too, with their ids. A box between them lies on
    the straight line of a pair, or where a box without partner is; it takes the id of the nearer
    end, or of the other one if that has none and no box of the nearer end has it.
    """

    def __init__(self, before: Detections, after: Detections) -> None:
        self._before, self._after = before, after
        rows, columns = _possible_pairs(before, after)
        # A box without a partner stays where it is: a pair of itself.
        alone_before, alone_after = np.arange(len(before)), np.arange(len(after))
        self._start = np.concatenate((before.xyxy[rows], before.xyxy, after.xyxy))
        self._end = np.concatenate((after.xyxy[columns], before.xyxy, after.xyxy))
        self._start_confidence = np.concatenate(
            (before.confidence[rows], before.confidence, after.confidence)
        )
        self._end_confidence = np.concatenate(
            (after.confidence[columns], before.confidence, after.confidence)
        )
        self._class_id = np.concatenate((before.class_id[rows], before.class_id, after.class_id))
        none_before, none_after = (np.full(len(boxes), -1) for boxes in (after, before))
        self._rows = np.concatenate((rows, alone_before, none_before))
        self._columns = np.concatenate((columns, none_after, alone_after))

    def ids(self, boxes: Detections, fraction: float) -> NDArray[np.int64]:
        """The ids of the boxes at a fraction (0 to 1) of the time between the two frames."""
        found = np.full(len(boxes), NO_TRACK, np.int64)
        if not len(self._class_id):
            return found
        xyxy = self._start + (self._end - self._start) * np.float32(fraction)
        confidence = self._start_confidence + (
            self._end_confidence - self._start_confidence
        ) * np.float32(fraction)
        taken: set[int] = set()
        for number in range(len(boxes)):
            apart = np.abs(xyxy - boxes.xyxy[number]).max(axis=1) / _MOST_APART_PX
            of_confidence = np.abs(confidence - boxes.confidence[number])
            np.maximum(apart, of_confidence / _MOST_APART_CONFIDENCE, out=apart)
            apart[self._class_id != boxes.class_id[number]] = np.inf
            place = int(apart.argmin())
            if apart[place] <= 1.0:
                track_id = self._id_of(place, fraction)
                if track_id not in taken:
                    found[number] = track_id
                    taken.add(track_id)
        return found

    def _id_of(self, place: int, fraction: float) -> int:
        ends = [(self._before, self._rows[place]), (self._after, self._columns[place])]
        if fraction >= 0.5:
            ends.reverse()
        nearer, other = (_id(boxes, row) for boxes, row in ends)
        if nearer != NO_TRACK or other == NO_TRACK:
            return nearer
        nearest_ids = ends[0][0].track_id
        assert nearest_ids is not None
        return NO_TRACK if other in nearest_ids else other


def _id(boxes: Detections, row: int) -> int:
    assert boxes.track_id is not None
    return NO_TRACK if row < 0 else int(boxes.track_id[row])


def _possible_pairs(
    before: Detections, after: Detections
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Boxes of one class that overlap or are near each other, those that overlap most first."""
    a, b = before.xyxy, after.xyxy
    between = (a[:, None, :2] + a[:, None, 2:] - b[None, :, :2] - b[None, :, 2:]) / 2.0
    size = np.sqrt(np.maximum((a[:, 2:] - a[:, :2]).prod(axis=1), 1.0))
    near = np.hypot(between[..., 0], between[..., 1]) <= _FARTHEST_SIZES * size[:, None]
    overlap = iou_matrix(a, b)
    near |= overlap > 0.0
    near &= before.class_id[:, None] == after.class_id[None]
    rows, columns = np.nonzero(near)
    order = np.argsort(-overlap[rows, columns], kind="stable")
    return rows[order], columns[order]
