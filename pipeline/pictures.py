"""Still pictures, as frames like those of a clip."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.container import require_regular_file
from pipeline.errors import InputError, reason_of
from pipeline.frames import Frame

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def list_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted by name. Raises InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES)
    if not pictures:
        raise InputError(f"{folder}: holds no picture")
    return pictures


def read_picture(path: Path, index: int = 0) -> Frame:
    """A picture as a frame of RGB planes, upright. Raises InputError."""
    image = av.VideoFrame.from_ndarray(read_pixels(path), format="bgr24")
    return Frame(index=index, pts=index, duration=1, time_base=Fraction(1), image=image)


def read_pixels(path: Path) -> NDArray[np.uint8]:
    """A picture as BGR (height, width, 3), upright. Raises InputError."""
    require_regular_file(path)
    try:
        pixels = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
    except (cv2.error, OSError) as error:
        raise InputError(f"{path}: not a picture that can be read ({reason_of(error)})") from error
    if pixels is None:
        raise InputError(f"{path}: not a picture that can be read")
    return pixels.astype(np.uint8, copy=False)
