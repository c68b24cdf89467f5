"""What inferring one more frame between two inferred ones would set right; pure numpy.

The numbers were measured on full detections of clips of many kinds: traffic, streets, shops, faces,
a shaking camera, pans over pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.frames.interpolate import Pairs
from pipeline.frames.links import Link, bend

LEAST_CONFIDENCE, _SURE_ABOVE, _FULL_ABOVE = 0.25, 0.1, 0.2
"""Boxes count from the threshold on, which is taken as 0.25 or more; fully, so far above it."""

_WRONG_ALONE = 0.45
"""Of the boxes that appear or vanish somewhere between, at any frame between."""

_GOOD_IOU = 0.75
"""Boxes whose motion is not known are wrong as far as they overlap less at both ends."""

_STRAIGHT, _BENT, _WRONG_BENT = 0.2, 0.6, 0.6
"""Boxes so far (1 - IoU) off a straight line, and the share that is wrong from the second on."""

_STILL_IOU, _MOVING_IOU = 0.92, 0.77
"""Boxes that overlap so much hardly move, so that they cannot be off."""

_KNOWN_BEND = 0.3
"""Boxes that do not overlap are one thing if they are no further off a straight line."""

_WRONG_WEAK, _WEAK_BELOW = 0.05, 0.3
"""Of the boxes at the threshold, which come and go; fewer up to so far above it."""

_FEWEST = 1.5
"""Frames with fewer boxes count as if they had so many: else one weak box would decide too much."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The links before and behind the two frames in question; None where there is none."""

    before: Link | None
    behind: Link | None


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is expected of the frames between two inferred ones.

    pairs: the boxes that are one thing in both.
    gain: boxes in all of these frames that inferring the middle would set right, divided by the
        number of boxes of a frame.
    """

    pairs: Pairs
    gain: float


def outlook(
    across: Link, around: Surroundings, num_between: int, confidence_threshold: float
) -> Outlook:
    """The outlook for so many frames between two inferred ones.

    confidence_threshold: of the boxes that are asked for.

    A box without a partner at the other end appears or vanishes at an unknown time: the middle
    halves the frames in question. One with a partner moves in a straight line: it is wrong as far
    as it is off the line through the inferred frames before or behind, or, where these do not show
    it, as far as it moves at all; the middle sets that right. Of boxes near the threshold, some are
    wrong in each frame: the middle sets one frame right.
    """
    first, last = across.first.detections, across.last.detections
    least = max(LEAST_CONFIDENCE, confidence_threshold)
    off = _off_the_line(across, around)
    is_one = (across.iou > 0.0) | (np.fmin(off[0], off[1]) <= _KNOWN_BEND)
    rows, columns = across.pairs[0][is_one], across.pairs[1][is_one]
    stronger = np.maximum(first.confidence[rows], last.confidence[columns])
    weaker = np.minimum(first.confidence[rows], last.confidence[columns])
    moving = _wrong_on_the_way(across.iou[is_one], np.fmax(off[0], off[1])[is_one])
    moving *= _ramp(stronger, least, least + _FULL_ABOVE)
    weak = _ramp(least + _WEAK_BELOW - weaker, 0.0, _WEAK_BELOW / 2)
    weak *= _WRONG_WEAK * _ramp(stronger, least, least + _SURE_ABOVE)
    alone = _WRONG_ALONE * sum(
        _ramp(np.delete(boxes.confidence, paired), least, least + _FULL_ABOVE).sum()
        for boxes, paired in ((first, rows), (last, columns))
    )
    right = alone * (num_between + 1) / 2 + moving.sum() * num_between + weak.sum()
    number = sum(np.count_nonzero(b.confidence >= least + _SURE_ABOVE) for b in (first, last)) / 2
    return Outlook((rows, columns), float(right) / max(_FEWEST, number))


def _off_the_line(across: Link, around: Surroundings) -> NDArray[np.float64]:
    """(2, pairs): 1 - IoU, as far as the frames before and those behind show it; else NaN.

    A line over a shorter time than that before or behind is off by less.
    """
    rows, columns = across.pairs
    off = np.full((2, len(rows)), np.nan)
    if around.before is not None:
        share = min(1.0, across.duration / around.before.duration)
        off[0] = share * bend(around.before, across)[rows]
    if around.behind is not None:
        share = min(1.0, across.duration / around.behind.duration)
        off[1] = share * bend(across, around.behind)[columns]
    return off


def _wrong_on_the_way(iou: NDArray[np.float64], off: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each pair of boxes, the share of the frames between in which it is wrong.

    iou: of both ends. off: 1 - IoU with a straight line; NaN where it is not known.
    """
    bent = _WRONG_BENT * _ramp(off, _STRAIGHT, _BENT) * _ramp(-iou, -_STILL_IOU, -_MOVING_IOU)
    return np.where(np.isnan(off), _ramp(-iou, -_GOOD_IOU, 0.0), bent)


def _ramp(values: NDArray[np.floating], zero: float, one: float) -> NDArray[np.float64]:
    """0 up to a value, 1 from another on, and straight in between."""
    share: NDArray[np.float64] = (values.astype(np.float64) - zero) / (one - zero)
    return share.clip(0.0, 1.0)
