"""A decoded frame -> the model's input: converted by swscale, letterboxed by OpenCV.

Of large frames, the planes are resized first. HDR is mapped to SDR.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.color import ToBgr, ToRgb, rgb_is_bgr
from pipeline.media.frame import Frame
from pipeline.media.gamut import bt709_table, to_bt709
from pipeline.media.hdr import is_hdr
from pipeline.model.letterbox import Letterbox
from pipeline.model.plane_resize import PlaneResizer, resizes_planes
from pipeline.model.tone_map import ToneMap


class Preprocessor:
    """Scales and converts the frames of one clip; for one thread at a time."""

    def __init__(self, letterbox: Letterbox) -> None:
        self._letterbox = letterbox
        self._to_bgr, self._to_rgb = ToBgr(), ToRgb()
        self._resize_planes = PlaneResizer()
        self._tone_map = ToneMap()

    def __call__(self, frame: Frame, model_input: NDArray[np.uint8]) -> None:
        """Write the frame, as RGB, into its place in a padded uint8 (height, width, 3).

        The padding is not touched, so that a reused buffer keeps it. Pixels are those that
        YOLOv5's own preprocessing gives: swscale could scale as well, and faster, but each of
        its filters moves or blurs edges enough for some boxes to differ from the original's.
        Those of large frames come close to them: see `plane_resize`.
        """
        image = frame.seen
        (x, y), (width, height) = self._letterbox.offset_xy, self._letterbox.content_wh
        content = model_input[y : y + height, x : x + width]
        if is_hdr(int(image.color_trc)):
            content[:] = self._tone_map(image, (width, height))
            return
        table = bt709_table(image)
        if resizes_planes(image, (width, height)):
            self._resize_planes(image, content, bgr=table is not None)
            if table is None:
                return
        elif table is None and rgb_is_bgr(image):
            _resized(self._to_rgb(image), content)
            return
        else:
            _resized(self._to_bgr(image), content)
        bgr = content if table is None else to_bt709(content, table)
        cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=content)


def _resized(pixels: NDArray[np.uint8], content: NDArray[np.uint8]) -> None:
    """Write the pixels at the size of the content."""
    height, width, _ = content.shape
    if content.shape == pixels.shape:
        content[:] = pixels
    else:
        cv2.resize(pixels, (width, height), dst=content, interpolation=cv2.INTER_LINEAR)
