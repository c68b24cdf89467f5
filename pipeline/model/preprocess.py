"""A decoded frame -> the model's input: converted by swscale, letterboxed by OpenCV."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.color import ToBgr
from pipeline.media.frame import Frame
from pipeline.media.gamut import bt709_table, to_bt709
from pipeline.model.letterbox import Letterbox


class Preprocessor:
    """Scales and converts the frames of one clip; for one thread at a time."""

    def __init__(self, letterbox: Letterbox) -> None:
        self._letterbox = letterbox
        self._to_bgr = ToBgr()

    def __call__(self, frame: Frame, model_input: NDArray[np.uint8]) -> None:
        """Write the frame, as RGB, into its place in a padded uint8 (height, width, 3).

        The padding is not touched, so that a reused buffer keeps it. Pixels are those that
        YOLOv5's own preprocessing gives: swscale could scale as well, and faster, but each of
        its filters moves or blurs edges enough for some boxes to differ from the original's.
        """
        bgr = self._to_bgr(frame.image)
        (x, y), (width, height) = self._letterbox.offset_xy, self._letterbox.content_wh
        content = model_input[y : y + height, x : x + width]
        if content.shape != bgr.shape:
            cv2.resize(bgr, (width, height), dst=content, interpolation=cv2.INTER_LINEAR)
            bgr = content
        if (table := bt709_table(frame.image)) is not None:
            bgr = to_bt709(bgr, table)
        cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB, dst=content)
