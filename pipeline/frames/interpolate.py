"""Boxes for the frames between two that were inferred; pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections, pair_boxes

LEAST_IOU = 0.1
"""Two boxes of a class that overlap less are two things."""

Pairs = tuple[NDArray[np.intp], NDArray[np.intp]]
"""The indices of boxes in one frame, and those of their partners in another."""


class Interpolation:
    """The boxes between two frames; they are paired once, for all frames between.

    Boxes of the same class are paired, those that overlap most first; a pair moves in a straight
    line. A box without a partner stays where it is, in the half of the time that is nearer to it.

    pairs: instead, if they are known.
    """

    def __init__(self, before: Detections, after: Detections, pairs: Pairs | None = None) -> None:
        self._before, self._after = before, after
        rows, columns = pair_boxes(before, after, LEAST_IOU) if pairs is None else pairs
        self._rows, self._columns = rows, columns
        self._alone_before = np.setdiff1d(np.arange(len(before)), rows)
        self._alone_after = np.setdiff1d(np.arange(len(after)), columns)

    def at(self, fraction: float) -> Detections:
        """The boxes at a fraction (0 to 1) of the time between the two frames."""
        before, after, rows, columns = self._before, self._after, self._rows, self._columns
        moved_xyxy = _between(before.xyxy[rows], after.xyxy[columns], fraction)
        moved_confidence = _between(before.confidence[rows], after.confidence[columns], fraction)
        is_first_half = fraction < 0.5
        nearer = before if is_first_half else after
        alone = self._alone_before if is_first_half else self._alone_after
        confidence = np.concatenate((moved_confidence, nearer.confidence[alone]))
        order = np.argsort(-confidence, kind="stable")
        return Detections(
            np.concatenate((moved_xyxy, nearer.xyxy[alone]))[order],
            confidence[order],
            np.concatenate((before.class_id[rows], nearer.class_id[alone]))[order],
        )


def _between(
    start: NDArray[np.float32], end: NDArray[np.float32], fraction: float
) -> NDArray[np.float32]:
    between: NDArray[np.float32] = start + (end - start) * np.float32(fraction)
    return between
