"""Still pictures, as frames like those of a clip."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from pipeline.errors import InputError
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
    pixels = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if pixels is None:
        raise InputError(f"{path}: not a picture that can be read")
    image = av.VideoFrame.from_ndarray(pixels.astype(np.uint8, copy=False), format="bgr24")
    return Frame(index=index, pts=index, duration=1, time_base=Fraction(1), image=image)
