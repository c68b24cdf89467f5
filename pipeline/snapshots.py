"""A few annotated frames, spread over the clip, kept for the report as they pass by."""

from __future__ import annotations

import base64

import av
import cv2
import numpy as np

_NUM_PICTURES = 4
_WIDTH_PX = 560
_UNKNOWN_LENGTH = (0, 250, 1000, 4000)


class Snapshots:
    """Pictures at a few places of a clip of so many frames; None where nobody knows how many."""

    def __init__(self, num_frames: int | None) -> None:
        self.pictures: list[str] = []
        parts = range(_NUM_PICTURES)
        self._indices = (
            {int((part + 0.5) / _NUM_PICTURES * num_frames) for part in parts}
            if num_frames
            else set(_UNKNOWN_LENGTH)
        )

    def look(self, index: int, image: av.VideoFrame) -> None:
        """Keep the frame, as a data: URL of a JPEG picture, if it is one of the chosen."""
        if index not in self._indices:
            return
        width = min(_WIDTH_PX, image.width)
        height = max(1, round(image.height * width / image.width))
        pixels = image.to_ndarray(format="bgr24", width=width, height=height)
        _, jpeg = cv2.imencode(".jpg", pixels)
        encoded = base64.b64encode(np.asarray(jpeg).tobytes()).decode("ascii")
        self.pictures.append(f"data:image/jpeg;base64,{encoded}")
