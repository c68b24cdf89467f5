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
from pipeline.media.frame import plane_samples

_LEAST_SCALE = 2
"""Smaller frames are converted whole: for them the result is that of OpenCV to the last level."""
_SAMPLING, _DEPTHS = ("420p", "422p", "444p"), ("", "10le", "12le")
_FORMATS = frozenset(
    [f"yuv{sampling}{depth}" for sampling in _SAMPLING for depth in _DEPTHS]
    + [f"yuvj{sampling}" for sampling in _SAMPLING]
)


def resizes_planes(
    image: av.VideoFrame, content_wh: tuple[int, int], *, least_scale: int = _LEAST_SCALE
) -> bool:
    """Whether a frame is so many times as wide and high, and of a format that is known here."""
    width, height = content_wh
    return (
        image.format.name in _FORMATS
        and image.width > least_scale * width
        and image.height > least_scale * height
    )


class PlaneResizer:
    """Resizes frames of which `resizes_planes`; for one thread at a time."""

    def __init__(self) -> None:
        self._planes: list[Any] = [None, None, None]
        self._merged: Any = None
        self._converted: Any = None

    def __call__(self, image: av.VideoFrame, content: NDArray[np.uint8], *, bgr: bool) -> None:
        """Write the frame into content, uint8 (height, width, 3); bgr: BGR instead of RGB."""
        self._merge(image, (content.shape[1], content.shape[0]))
        matrix = rgb_from_planes(image)
        if bgr:
            matrix = matrix[::-1]
        if self._merged.dtype == np.uint8:
            cv2.transform(self._merged, matrix, content)
        else:
            # In 16 bits nothing is saturated at 255 yet.
            self._converted = cv2.transform(self._merged, matrix, self._converted)
            cv2.convertScaleAbs(self._converted, content)

    def rgb16(self, image: av.VideoFrame, size_wh: tuple[int, int]) -> NDArray[np.uint16]:
        """The frame as RGB of 16 bits, (height, width, 3), which the next call may overwrite."""
        self._merge(image, size_wh)
        merged = self._merged.astype(np.uint16, copy=False)
        self._converted = cv2.transform(merged, 257 * rgb_from_planes(image), self._converted)
        return np.asarray(self._converted, np.uint16)

    def _merge(self, image: av.VideoFrame, size_wh: tuple[int, int]) -> None:
        """The planes at a size, as one array in their own depth."""
        # The arrays of the frame before are written to again, unless its depth was another one.
        for number in range(3):
            samples = plane_samples(image.planes[number], image.format.components[number].bits)
            # swscale gives 2x2 pixels one sample of colour; OpenCV resizes these.
            shared = 2 * samples.shape[0] <= image.height + 1
            self._planes[number] = cv2.resize(
                samples,
                size_wh,
                self._planes[number],
                interpolation=cv2.INTER_NEAREST_EXACT if shared else cv2.INTER_LINEAR,
            )
        self._merged = cv2.merge(self._planes, self._merged)
