"""The position of a frame inside the model input, and the conversion back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

PADDING_VALUE = 114
"""The grey of the padding in YOLOv5's training."""


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A frame scaled to fit, centred on grey.

    input_wh: the model input; content_wh: the scaled frame in it, from offset_xy. Pixels.
    """

    source_wh: tuple[int, int]
    input_wh: tuple[int, int]
    content_wh: tuple[int, int]
    offset_xy: tuple[int, int]

    def to_source(self, xyxy: NDArray[np.float32]) -> NDArray[np.float32]:
        """Boxes (N, 4) in pixels of the model input -> pixels of the source, clipped to it."""
        offset, scale, source = _way_back(self)
        corners = (xyxy.reshape(-1, 2, 2) - offset) * scale
        return np.asarray(np.minimum(np.maximum(corners, 0), source).reshape(-1, 4))


@lru_cache(maxsize=64)
def _way_back(
    box: Letterbox,
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """What to_source subtracts, multiplies by, and clips to; x and y each."""
    source, content, offset = (
        np.asarray(values, np.float32) for values in (box.source_wh, box.content_wh, box.offset_xy)
    )
    return offset, source / content, source


def input_size_wh(source_wh: tuple[int, int], imgsz: int, stride: int = 32) -> tuple[int, int]:
    """The smallest rectangle with sides divisible by stride that holds the scaled frame."""
    return rounded_up(_scaled_to_fit(source_wh, (imgsz, imgsz)), stride)


def rounded_up(size_wh: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The smallest size with sides divisible by a number that is not smaller than another."""
    width, height = size_wh
    return -(-width // multiple) * multiple, -(-height // multiple) * multiple


def letterbox(source_wh: tuple[int, int], input_wh: tuple[int, int]) -> Letterbox:
    """Fit a frame into a model input, keeping its proportions; odd padding goes below."""
    content_wh = _scaled_to_fit(source_wh, input_wh)
    offset_xy = (
        (input_wh[0] - content_wh[0]) // 2,
        (input_wh[1] - content_wh[1]) // 2,
    )
    return Letterbox(source_wh, input_wh, content_wh, offset_xy)


def _scaled_to_fit(source_wh: tuple[int, int], bound_wh: tuple[int, int]) -> tuple[int, int]:
    # The larger gain first: where it fits after rounding, rounding alone made it too large, and
    # the smaller one would shrink the other side for nothing.
    gains = sorted((bound_wh[0] / source_wh[0], bound_wh[1] / source_wh[1]), reverse=True)
    width, height = bound_wh
    for gain in gains:
        width, height = round(source_wh[0] * gain), round(source_wh[1] * gain)
        if width <= bound_wh[0] and height <= bound_wh[1]:
            break
    return max(1, width), max(1, height)
