"""Pictures of things -> the picture of a scene: scaled, turned, blurred by motion, laid over it."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray


def intersection(
    a: tuple[int, int, int, int], b: tuple[int, int, int, int]
) -> tuple[int, int, int, int] | None:
    x0, y0, x1, y1 = max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])
    return (x0, y0, x1, y1) if x0 < x1 and y0 < y1 else None


def scaled_and_turned(
    levels: list[NDArray[np.uint8]], size_px: int, degrees: float
) -> NDArray[np.uint8]:
    """A square picture brought to size_px and turned clockwise, on a canvas that holds it."""
    master = next((m for m in reversed(levels) if m.shape[0] >= size_px), levels[0])
    scale = size_px / master.shape[0]
    if not degrees:
        small = cv2.resize(master, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
        return small.astype(np.uint8, copy=False)
    side = math.ceil(size_px * 1.42) + 2
    middle = (master.shape[0] - 1) / 2
    turn = cv2.getRotationMatrix2D((middle, middle), -degrees, scale)
    turn[:, 2] += (side - 1) / 2 - middle
    turned = cv2.warpAffine(master, turn, (side, side), flags=cv2.INTER_LINEAR)
    return turned.astype(np.uint8, copy=False)


def motion_blurred(bgra: NDArray[np.uint8], way_xy: tuple[float, float]) -> NDArray[np.uint8]:
    """What a camera sees that keeps its shutter open while the thing moves this way."""
    if math.hypot(*way_xy) < 1.5:
        return bgra
    pad_x, pad_y = (math.ceil(abs(way)) + 1 for way in way_xy)
    blurred = np.pad(bgra, ((pad_y, pad_y), (pad_x, pad_x), (0, 0)))
    height, width = blurred.shape[:2]
    # Each halved step doubles the number of instants that are averaged.
    for step in range(1, math.ceil(math.log2(math.hypot(*way_xy))) + 1):
        x, y = (round(way / 2**step) for way in way_xy)
        view, part = overlap((height, width), (x, y), (height, width))
        moved = np.zeros_like(blurred)
        moved[view] = blurred[part]
        cv2.addWeighted(blurred, 0.5, moved, 0.5, 0, dst=blurred)
    return blurred


def overlap(
    shape_hw: tuple[int, ...], corner_xy: tuple[int, int], part_hw: tuple[int, ...]
) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Where a picture at corner_xy meets the canvas: (in the canvas, in the picture)."""
    x, y = corner_xy
    left, top = max(0, x), max(0, y)
    right = max(left, min(shape_hw[1], x + part_hw[1]))
    bottom = max(top, min(shape_hw[0], y + part_hw[0]))
    return (
        (slice(top, bottom), slice(left, right)),
        (slice(top - y, bottom - y), slice(left - x, right - x)),
    )
