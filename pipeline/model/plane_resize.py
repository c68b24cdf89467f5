"""Large frames -> RGB at the model's size, from the few samples of their planes that it takes.

Each plane is resized in its own depth, as OpenCV resizes pictures, and the colours are converted
afterwards: a hundredth of the pixels of a 4K frame, and no copy of it in 8 bits.
"""

from __future__ import annotations

from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.color import rgb_from_planes
from pipeline.media.frame import plane_rows

_LEAST_SCALE = 2
"""Smaller frames are converted whole: for them the result is that of OpenCV to the last level."""
_SAMPLING, _DEPTHS = ("420p", "422p", "444p"), ("", "10le", "12le")
_FORMATS = frozenset(
    [f"yuv{sampling}{depth}" for sampling in _SAMPLING for depth in _DEPTHS]
    + [f"yuvj{sampling}" for sampling in _SAMPLING]
)


def resizes_planes(image: av.VideoFrame, content_wh: tuple[int, int]) -> bool:
    """Whether a frame is more than twice as wide and high, and of a format that is known here."""
    width, height = content_wh
    return (
        image.format.name in _FORMATS
        and image.width > _LEAST_SCALE * width
        and image.height > _LEAST_SCALE * height
    )


class PlaneResizer:
    """Resizes frames of which `resizes_planes`; for one thread at a time."""

    def __init__(self) -> None:
        self._planes: list[Any] = [None, None, None]
        self._merged: Any = None
        self._converted: Any = None

    def __call__(self, image: av.VideoFrame, content: NDArray[np.uint8], *, bgr: bool) -> None:
        """Write the frame into content, uint8 (height, width, 3); bgr: BGR instead of RGB."""
        height, width, _ = content.shape
        # The arrays of the frame before are written to again, unless its depth was another one.
        for number in range(3):
            samples = _samples(image, number)
            # swscale gives 2x2 pixels one sample of colour; OpenCV resizes these.
            shared = 2 * samples.shape[0] <= image.height + 1
            self._planes[number] = cv2.resize(
                samples,
                (width, height),
                self._planes[number],
                interpolation=cv2.INTER_NEAREST_EXACT if shared else cv2.INTER_LINEAR,
            )
        self._merged = cv2.merge(self._planes, self._merged)
        matrix = rgb_from_planes(image)
        if bgr:
            matrix = matrix[::-1]
        if self._merged.dtype == np.uint8:
            cv2.transform(self._merged, matrix, content)
        else:
            # In 16 bits nothing is saturated at 255 yet.
            self._converted = cv2.transform(self._merged, matrix, self._converted)
            cv2.convertScaleAbs(self._converted, content)


def _samples(image: av.VideoFrame, number: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    plane = image.planes[number]
    rows = plane_rows(plane)
    if image.format.components[number].bits > 8:
        return rows.view(np.uint16)[:, : plane.width]
    return rows[:, : plane.width]
