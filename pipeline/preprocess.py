"""A decoded frame -> the model's input: converted by swscale, letterboxed by OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from pipeline.frames import Frame, plane_rows
from pipeline.letterbox import Letterbox


class Preprocessor:
    """Scales and converts the frames of one clip; for one thread at a time."""

    def __init__(self, letterbox: Letterbox) -> None:
        self._letterbox = letterbox
        self._to_rgb = VideoReformatter()

    def __call__(self, frame: Frame, model_input: NDArray[np.uint8]) -> None:
        """Write the frame, as RGB, into its place in a padded uint8 (height, width, 3).

        The padding is not touched, so that a reused buffer keeps it. Pixels are those that
        YOLOv5's own preprocessing gives: swscale could scale as well, and faster, but each of
        its filters moves or blurs edges enough for some boxes to differ from the original's.
        """
        # threads=1 because swscale would otherwise start one per core on every call.
        rgb = self._to_rgb.reformat(frame.image, format="rgb24", threads=1)
        pixels = plane_rows(rgb.planes[0])[:, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)
        (x, y), (width, height) = self._letterbox.offset_xy, self._letterbox.content_wh
        content = model_input[y : y + height, x : x + width]
        if content.shape == pixels.shape:
            content[:] = pixels
        else:
            cv2.resize(pixels, (width, height), dst=content, interpolation=cv2.INTER_LINEAR)
