"""Still pictures, as frames like those of a clip."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.errors import InputError, reason_of
from pipeline.media.container import require_regular_file
from pipeline.media.frame import Frame


def picture_bytes(path: Path) -> bytes:
    """What a picture's file holds. Raises InputError."""
    require_regular_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def read_picture(path: Path, index: int = 0) -> Frame:
    """A picture as a frame of RGB planes, upright. Raises InputError."""
    return decode_picture(picture_bytes(path), path, index)


def decode_picture(content: bytes, path: Path, index: int = 0) -> Frame:
    """What a picture's file holds as a frame of RGB planes, upright. Raises InputError."""
    image = av.VideoFrame.from_ndarray(_decode(content, path), format="bgr24")
    return Frame(index=index, pts=index, duration=1, time_base=Fraction(1), image=image)


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """A picture as BGR (height, width, 3), upright. Raises InputError."""
    return _decode(picture_bytes(path), path)


def _decode(content: bytes, path: Path) -> NDArray[np.uint8]:
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        raise InputError(f"{path}: not a picture that can be read ({reason_of(error)})") from error
    if pixels is None:
        raise InputError(f"{path}: not a picture that can be read")
    return pixels.astype(np.uint8, copy=False)
