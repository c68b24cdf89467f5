"""The region of the frame in which boxes are kept: a rectangle or a polygon, as --roi gives it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.errors import InputError
from pipeline.core.roi import polygon

STEP_PX = 4
"""A window begins and ends at multiples of it: every subsampling of colours has samples there."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of the displayed frame, in whole pixels."""

    left: int
    top: int
    size_wh: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Region:
    """A polygon in pixels of the displayed frame, float64 (N, 2), and the size of that frame."""

    points: NDArray[np.float64]
    frame_wh: tuple[int, int]

    def kept(self, boxes: Detections) -> Detections:
        """The boxes whose centres lie in the region, or on its edge."""
        inside = self._contains((boxes.xyxy[:, :2].astype(np.float64) + boxes.xyxy[:, 2:]) / 2)
        return Detections(boxes.xyxy[inside], boxes.confidence[inside], boxes.class_id[inside])

    @property
    def window(self) -> Window:
        """The smallest one around it."""
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        begin = [max(0, math.floor(edge / STEP_PX) * STEP_PX) for edge in low]
        end = [
            min(side, math.ceil(edge / STEP_PX) * STEP_PX)
            for edge, side in zip(high, self.frame_wh, strict=True)
        ]
        return Window(begin[0], begin[1], (end[0] - begin[0], end[1] - begin[1]))

    def _contains(self, centres: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether points (N, 2) lie inside: a ray from each crosses the outline an odd number of
        times."""
        begin, end = self.points, np.roll(self.points, -1, axis=0)
        x, y = centres[:, :1], centres[:, 1:]
        along, apart = end - begin, (x - begin[:, 0], y - begin[:, 1])
        cross = along[:, 0] * apart[1] - along[:, 1] * apart[0]
        crosses = (begin[:, 1] <= y) != (end[:, 1] <= y)
        to_the_right = (cross > 0) == (along[:, 1] > 0)
        within = apart[0] * (x - end[:, 0]) + apart[1] * (y - end[:, 1]) <= 0
        on_edge = ((cross == 0) & within).any(axis=1)
        return np.asarray(on_edge | ((crosses & to_the_right).sum(axis=1) % 2 == 1))


def region_of(text: str, frame_wh: tuple[int, int]) -> Region:
    """The region of a frame of this size. Raises InputError if it lies outside the frame.

    text: as `roi_text` gives it. Numbers that are all 0 to 1 are shares of the frame.
    """
    numbers = [float(number) for number in text.split(",")]
    points = np.array(polygon(numbers), np.float64)
    if max(numbers) <= 1:
        points = points * frame_wh
    low, high = points.min(axis=0), points.max(axis=0)
    if (high <= 0).any() or (low >= frame_wh).any():
        width, height = frame_wh
        raise InputError(f"--roi {text} lies outside the frame, which is {width}x{height}")
    return Region(points, frame_wh)
