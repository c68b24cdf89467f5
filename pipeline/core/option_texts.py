"""The text of an option on the command line -> its value; each raises ValueError."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

CalibrationName = Literal["clip"]
CLIP: CalibrationName = "clip"

IMGSZ = "imgsz"


def read_imgsz(text: str) -> int:
    if not text.isdecimal() or int(text) == 0 or int(text) % 32:
        raise ValueError(f"{text!r} is not a multiple of 32")
    return int(text)


def read_tile(text: str) -> int:
    """The side of a tile; 0 for that of the model input."""
    if text != IMGSZ and not text.isdecimal():
        raise ValueError(f"{text!r} is not a number of pixels")
    return 0 if text == IMGSZ else int(text)


def read_number_or_auto(text: str) -> int | None:
    if text != "auto" and not text.isdecimal():
        raise ValueError(f"{text!r} is neither a number nor auto")
    return None if text == "auto" else int(text)


def read_path(text: str) -> Path:
    """Raises ValueError for an empty one, as unset variables give: it is the current folder."""
    if not text:
        raise ValueError("it is empty")
    return Path(text)


def read_calibration(text: str) -> CalibrationName | Path:
    return CLIP if text == CLIP else read_path(text)


def read_output_size(text: str) -> tuple[int, int] | int:
    """Width and height, or the height alone."""
    width, x, height = text.partition("x")
    try:
        return (int(width), int(height)) if x else int(width)
    except ValueError:
        raise ValueError(f"{text!r} is neither WIDTHxHEIGHT nor a height") from None
