"""Filled shapes on a square of hard pixels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

_SHIFT_BITS = 4
_SHADOW = (0, 0, 0, 80)

Color = tuple[int, int, int]
Point = tuple[float, float]


class Pen:
    """Draws filled shapes, in coordinates from 0 to 1, on an empty square of hard pixels."""

    def __init__(self, size_px: int) -> None:
        self.canvas = np.zeros((size_px, size_px, 4), np.uint8)
        self._scale = size_px << _SHIFT_BITS

    def _fixed(self, values: Sequence[float]) -> tuple[int, ...]:
        return tuple(round(value * self._scale) for value in values)

    def polygon(self, points: Sequence[Point], color: Color) -> None:
        corners = np.array([self._fixed(point) for point in points], np.int32)
        cv2.fillPoly(self.canvas, [corners], (*color, 255), cv2.LINE_8, _SHIFT_BITS)

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], color)

    def ellipse(
        self,
        centre: Point,
        radii: Point,
        color: Color,
        *,
        turn: float = 0.0,
        arc: tuple[float, float] = (0.0, 360.0),
    ) -> None:
        """Degrees, clockwise; an arc less than full gives a slice."""
        self._ellipse(centre, radii, (*color, 255), turn, arc)

    def disc(self, centre: Point, radius: float, color: Color) -> None:
        self.ellipse(centre, (radius, radius), color)

    def shadow(self, centre: Point, radii: Point) -> None:
        """On the ground; too faint to belong to the silhouette."""
        self._ellipse(centre, radii, _SHADOW, 0.0, (0.0, 360.0))

    def line(self, start: Point, end: Point, width: float, color: Color) -> None:
        thickness = max(1, round(width * self.canvas.shape[0]))
        cv2.line(
            self.canvas,
            self._fixed(start),
            self._fixed(end),
            (*color, 255),
            thickness,
            cv2.LINE_8,
            _SHIFT_BITS,
        )

    def _ellipse(
        self,
        centre: Point,
        radii: Point,
        color: tuple[int, int, int, int],
        turn: float,
        arc: tuple[float, float],
    ) -> None:
        cv2.ellipse(
            self.canvas,
            self._fixed(centre),
            self._fixed(radii),
            turn,
            *arc,
            color,
            -1,
            cv2.LINE_8,
            _SHIFT_BITS,
        )
