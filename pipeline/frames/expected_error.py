"""How many boxes interpolation between two inferred frames is likely to get wrong; pure numpy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections, iou_of_pairs, pair_boxes
from pipeline.frames.interpolate import LEAST_IOU

_NO_WEIGHT, _FULL_WEIGHT = 0.2, 0.5
"""Boxes of this confidence count for nothing, and fully: weaker ones come and go by themselves."""

_GOOD_IOU = 0.7
"""Boxes of two frames that overlap so much, or more, move little enough for a straight line."""

_NO_BEND, _FULL_BEND = 0.10, 0.25
"""1 - IoU of a box and its place on a straight line at which the line is right, and wrong."""


class InferredFrame:
    """A frame that is being inferred; its detections are waited for when they are first read.

    pts: in any unit of time.
    """

    def __init__(self, index: int, pts: int, found: Callable[[int], Detections]) -> None:
        self.index, self.pts = index, pts
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
    def pairs(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Indices of the boxes of both frames."""
        return pair_boxes(self.first.detections, self.last.detections, LEAST_IOU)


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The links before and behind the two frames in question; None where there is none."""

    before: Link | None
    behind: Link | None


def expected_wrong_share(across: Link, around: Surroundings) -> float:
    """The share of boxes that frames between two inferred ones would have wrong, about.

    A box that has no partner at the other end appears or vanishes in between, at an unknown time:
    it counts as wrong in half of the frames. One that has a partner moves in a straight line: it
    counts as wrong as far as it is off a straight line through the inferred frames before or
    behind; where these do not show it, as far as it moves at all.
    """
    first, last = across.first.detections, across.last.detections
    rows, columns = across.pairs
    weights = [_weight(boxes.confidence) for boxes in (first, last)]
    wrong = _wrong_on_the_way(across, around)
    total = weights[0].sum() - (weights[0][rows] * (1.0 - wrong)).sum()
    total += weights[1].sum() - (weights[1][columns] * (1.0 - wrong)).sum()
    number = sum(np.count_nonzero(boxes.confidence > 0.25) for boxes in (first, last))
    return 0.5 * float(total) / max(1.0, 0.5 * number)


def _wrong_on_the_way(across: Link, around: Surroundings) -> NDArray[np.float64]:
    """For each pair of boxes, 0 (interpolation is right) to 1 (wrong)."""
    first, last = across.first.detections, across.last.detections
    rows, columns = across.pairs
    bends = np.full((2, len(rows)), np.nan)
    if around.before is not None:
        scale = across.duration / (4 * around.before.duration)
        bends[0] = scale * _bend(around.before, across)[rows]
    if around.behind is not None:
        scale = across.duration / (4 * around.behind.duration)
        bends[1] = scale * _bend(across, around.behind)[columns]
    bend = np.fmax(bends[0], bends[1])
    moved = (_GOOD_IOU - iou_of_pairs(first.xyxy[rows], last.xyxy[columns])) / _GOOD_IOU
    bent = (bend - _NO_BEND) / (_FULL_BEND - _NO_BEND)
    return np.where(np.isnan(bend), moved, bent).clip(0.0, 1.0)


def _bend(one: Link, other: Link) -> NDArray[np.float64]:
    """1 - IoU of each box of the frame in the middle and the straight line between its partners.

    NaN for boxes that do not have both. Where a box is accelerated evenly, the line over one of
    the two halves is off by a quarter of this, if these are equally long.
    """
    middle = one.last.detections
    before, behind = (np.full(len(middle), -1) for _ in range(2))
    before[one.pairs[1]] = one.pairs[0]
    behind[other.pairs[0]] = other.pairs[1]
    known = np.flatnonzero((before >= 0) & (behind >= 0))
    start = one.first.detections.xyxy[before[known]]
    end = other.last.detections.xyxy[behind[known]]
    fraction = np.float32(one.duration / (one.duration + other.duration))
    bend = np.full(len(middle), np.nan)
    bend[known] = 1.0 - iou_of_pairs(start + (end - start) * fraction, middle.xyxy[known])
    return bend


def _weight(confidence: NDArray[np.float32]) -> NDArray[np.float64]:
    weight: NDArray[np.float64] = (confidence.astype(np.float64) - _NO_WEIGHT) / (
        _FULL_WEIGHT - _NO_WEIGHT
    )
    return weight.clip(0.0, 1.0)
