"""A decoded frame -> the model's input, letterboxed, by swscale."""

from __future__ import annotations

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from pipeline.frames import Frame, plane_rows
from pipeline.letterbox import PADDING_VALUE, Letterbox

# Samples as OpenCV's INTER_LINEAR does, with which YOLOv5 was trained and is run: swscale's
# other filters smooth when they shrink, and then some boxes differ from the original's.
_INTERPOLATION = Interpolation.FAST_BILINEAR


def blank_input(input_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """A model input of nothing but padding: uint8 (1, height, width, 3)."""
    return np.full((1, input_wh[1], input_wh[0], 3), PADDING_VALUE, np.uint8)


class Preprocessor:
    """Scales and converts the frames of one clip; for one thread at a time."""

    def __init__(self, letterbox: Letterbox) -> None:
        self._letterbox = letterbox
        self._scale = VideoReformatter()
        self._convert = VideoReformatter()

    def __call__(self, frame: Frame, model_input: NDArray[np.uint8]) -> None:
        """Write the frame, as RGB, into its place in a padded uint8 (height, width, 3).

        The padding is not touched, so that a reused buffer keeps it.
        """
        width, height = self._letterbox.content_wh
        image = frame.image
        # Scaling planes and converting the small result costs a third of doing both at once;
        # threads=1 because swscale would otherwise start one per core on every call.
        if not image.format.is_rgb:
            image = self._scale.reformat(
                image, width, height, "yuv420p", interpolation=_INTERPOLATION, threads=1
            )
        rgb = self._convert.reformat(
            image, width, height, "rgb24", interpolation=_INTERPOLATION, threads=1
        )
        rows = plane_rows(rgb.planes[0])
        x, y = self._letterbox.offset_xy
        model_input[y : y + height, x : x + width] = rows[:, : width * 3].reshape(height, width, 3)
