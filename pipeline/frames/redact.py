"""Covers parts of a frame on its planes: all other pixels stay as they are."""

from __future__ import annotations

import math
from collections.abc import Collection

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.media.color import ToBgr, ToYuv420p
from pipeline.media.frame import VideoInfo, plane_rows
from pipeline.media.geometry import without_captions
from pipeline.media.side_data import has_captions

MOST_BLOCKS, LEAST_BLOCK_PX, LEVELS = 4, 8, 16
"""Blocks over the longer side of a cover, and the least side of one: all that is left of what is
covered is the mean of each, in so many levels."""

_PLANAR = ("yuv420p", "yuv420p10le", "yuv420p12le")
_FULL_RANGE = 2
_INTERPOLATIONS = {"blur": cv2.INTER_LINEAR, "pixelate": cv2.INTER_NEAREST}


class Redactor:
    """Covers parts of the frames of one source, and leaves out the boxes of what it covers.

    And closed captions, which encoders would keep.

    style: one of COVER_STYLES. class_ids: of what is covered. bits: of the annotated file.
    """

    def __init__(
        self, info: VideoInfo, style: str, class_ids: Collection[int], bits: int = 8
    ) -> None:
        self._style = style
        self._class_ids = np.array(sorted(class_ids), np.int64)
        self._is_full_range = info.color.range == _FULL_RANGE
        self._drawable = ToBgr().frame if info.is_picture else ToYuv420p(info.color, bits)
        self._is_picture = info.is_picture

    def __call__(self, image: av.VideoFrame, covers: NDArray[np.int64] | None) -> av.VideoFrame:
        """The image with these parts covered: whole pixels (N, 4), left, top, right, bottom.

        A frame of yuv420p of 8 to 12 bits keeps its format; others become yuv420p, or bgr24 of a
        still picture. It is copied first if the decoder still refers to it.
        """
        if covers is None:
            raise RuntimeError("a frame of a redacted clip has no covers")
        if has_captions(image):  # Any picture may bring some, not the first one only.
            image = without_captions(image)
        if self._is_picture or image.format.name not in _PLANAR:
            image = self._drawable(image)
        if not len(covers):
            return image
        image.make_writable()
        planes, black = _samples(image), self._black(image)
        level = (1 << image.format.components[0].bits) // LEVELS
        for left, top, right, bottom in covers.tolist():
            blocks_wh = _blocks(right - left, bottom - top)
            for number, (plane, sample) in enumerate(zip(planes, black, strict=True)):
                step = 2 if number else 1
                rows = slice(top // step, -(-bottom // step))
                columns = slice(left // step, -(-right // step))
                # Of chroma, one level is that of gray.
                offset = level // 2 if number else 0
                self._cover(plane[rows, columns], sample, blocks_wh, (level, offset))
        return image

    def others(self, detections: Detections) -> Detections:
        """The boxes of what is not covered."""
        return detections.where(~np.isin(detections.class_id, self._class_ids))

    def _cover(
        self,
        part: NDArray[np.uint8],
        black: int,
        blocks_wh: tuple[int, int],
        levels: tuple[int, int],
    ) -> None:
        """levels: the width of each, and by how much they begin before multiples of it."""
        if self._style == "fill":
            part[...] = black
            return
        height, width = part.shape[:2]
        means = cv2.resize(part, blocks_wh, interpolation=cv2.INTER_AREA)
        (level, offset), way = levels, _INTERPOLATIONS[self._style]
        numbers = np.minimum((means.astype(np.int32) + offset) // level, LEVELS - 1)
        means = (numbers * level + level // 2 - offset).astype(part.dtype)
        part[...] = cv2.resize(means, (width, height), interpolation=way)

    def _black(self, image: av.VideoFrame) -> tuple[int, ...]:
        if self._is_picture:
            return (0,)
        more = 1 << (image.format.components[0].bits - 8)
        return ((0 if self._is_full_range else 16) * more, 128 * more, 128 * more)


def _blocks(width: int, height: int) -> tuple[int, int]:
    side = max(LEAST_BLOCK_PX, math.ceil(max(width, height) / MOST_BLOCKS))
    return max(1, width // side), max(1, height // side)


def _samples(image: av.VideoFrame) -> list[NDArray[np.uint8]]:
    """Writable views of the planes, without their line padding."""
    if image.format.name == "bgr24":
        rows = plane_rows(image.planes[0])[:, : image.width * 3]
        return [rows.reshape(image.height, image.width, 3)]
    if image.format.components[0].bits > 8:
        return [plane_rows(p).view(np.uint16)[:, : p.width] for p in image.planes]  # type: ignore[misc]
    return [plane_rows(plane)[:, : plane.width] for plane in image.planes]
