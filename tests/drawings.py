"""Frames to draw on, boxes to draw, and where something was drawn."""

from __future__ import annotations

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.media.frame import plane_rows

Planes = list[NDArray[np.uint8]]


Box = tuple[float, float, float, float]


def plain(size_wh: tuple[int, int], pix_fmt: str = "yuv420p") -> av.VideoFrame:
    """A frame of one colour, unlike any that is drawn."""
    frame = av.VideoFrame(*size_wh, pix_fmt)
    for plane in frame.planes:
        plane_rows(plane)[:] = 77
    return frame


def planes_of(frame: av.VideoFrame) -> Planes:
    return [plane_rows(plane)[:, : plane.width].copy() for plane in frame.planes]


def found(*boxes: Box, class_id: int = 0) -> Detections:
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(len(boxes), 0.5, np.float32),
        np.full(len(boxes), class_id, np.int64),
    )


def touched(planes: Planes) -> NDArray[np.bool_]:
    """Which pixels of a plain frame were drawn on, by brightness or by colour."""
    height, width = planes[0].shape
    color = (planes[1] != 77) | (planes[2] != 77)
    return np.asarray(color.repeat(2, 0).repeat(2, 1)[:height, :width] | (planes[0] != 77))
