"""Which boxes of one inferred frame become which of the next, and how straight they move."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections, iou_of_pairs, pair_boxes
from pipeline.frames.glance import glance
from pipeline.frames.interpolate import LEAST_IOU, Pairs
from pipeline.media.frame import Frame

_FAR_CONFIDENCE = 0.25
_FAR_RATIO = 1.35
_FAR_SIZES = 8.0
"""Boxes that do not overlap may be one thing if they are of this confidence or more, if no side is
so many times as long as in the other, and if they are no further apart than so many box sizes."""


class InferredFrame:
    """A frame that is being inferred; its detections are waited for when they are first read.

    glance: what is left of its pixels.
    """

    def __init__(self, frame: Frame, found: Callable[[int], Detections]) -> None:
        self.index, self.pts = frame.index, frame.pts
        self.glance = glance(frame.seen)
        self._found = found

    @cached_property
    def detections(self) -> Detections:
        return self._found(self.index)


class Link:
    """Two inferred frames, and which boxes of the first become which of the last."""

    def __init__(self, first: InferredFrame, last: InferredFrame) -> None:
        self.first, self.last = first, last

    @property
    def duration(self) -> int:
        return self.last.pts - self.first.pts

    @cached_property
    def pairs(self) -> Pairs:
        """Those that overlap, then those that may be one fast thing, the nearest first."""
        first, last = self.first.detections, self.last.detections
        near = pair_boxes(first, last, LEAST_IOU)
        far = _pair_far(first, last, near)
        return np.concatenate((near[0], far[0])), np.concatenate((near[1], far[1]))

    @cached_property
    def iou(self) -> NDArray[np.float64]:
        """Of each pair."""
        rows, columns = self.pairs
        return iou_of_pairs(self.first.detections.xyxy[rows], self.last.detections.xyxy[columns])


def bend(one: Link, other: Link) -> NDArray[np.float64]:
    """1 - IoU of each box of the frame in the middle and the straight line between its partners.

    NaN for boxes that do not have both.
    """
    middle = one.last.detections
    before, behind = (np.full(len(middle), -1) for _ in range(2))
    before[one.pairs[1]] = one.pairs[0]
    behind[other.pairs[0]] = other.pairs[1]
    known = np.flatnonzero((before >= 0) & (behind >= 0))
    start = one.first.detections.xyxy[before[known]]
    end = other.last.detections.xyxy[behind[known]]
    fraction = np.float32(one.duration / (one.duration + other.duration))
    found = np.full(len(middle), np.nan)
    found[known] = 1.0 - iou_of_pairs(start + (end - start) * fraction, middle.xyxy[known])
    return found


def _pair_far(first: Detections, last: Detections, near: Pairs) -> Pairs:
    """Pairs among the boxes that are in none, of one class and of similar size."""
    left = []
    for boxes, paired in zip((first, last), near, strict=True):
        has_area = (boxes.xyxy[:, 2:] > boxes.xyxy[:, :2]).all(axis=1)  # Not cut off at the edge.
        alone = np.setdiff1d(np.flatnonzero(has_area), paired)
        left.append(alone[boxes.confidence[alone] >= _FAR_CONFIDENCE])
    a, b = first.xyxy[left[0]], last.xyxy[left[1]]
    sizes = [boxes[:, 2:] - boxes[:, :2] for boxes in (a, b)]
    ratio = sizes[0][:, None] / sizes[1][None]
    alike = np.maximum(ratio, 1.0 / ratio).max(axis=2, initial=0.0) <= _FAR_RATIO
    alike &= first.class_id[left[0]][:, None] == last.class_id[left[1]][None]
    between = (a[:, None, :2] + a[:, None, 2:] - b[None, :, :2] - b[None, :, 2:]) / 2.0
    distance = np.hypot(between[..., 0], between[..., 1])
    distance /= np.sqrt(sizes[0].prod(axis=1))[:, None]
    rows, columns = np.nonzero(alike & (distance <= _FAR_SIZES))
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for place in np.argsort(distance[rows, columns], kind="stable").tolist():
        row, column = int(left[0][rows[place]]), int(left[1][columns[place]])
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return np.array(list(pairs), np.intp), np.array(list(pairs.values()), np.intp)
