"""Folder -> the pictures in it. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.errors import InputError

# fmt: off
PICTURE_SUFFIXES = (
    ".avif", ".bmp", ".dib", ".exr", ".gif", ".hdr", ".ico", ".j2k", ".jls", ".jp2", ".jpe",
    ".jpeg", ".jpg", ".pam", ".pbm", ".pcx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi",
    ".ras", ".sgi", ".tif", ".tiff", ".webp", ".xwd",
)
# fmt: on
"""The suffixes of pictures in folders and patterns, in lower case."""
_CALIBRATION_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def list_pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted by name. Raises InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = sorted(folder.iterdir())
    pictures = [path for path in paths if path.suffix.lower() in _CALIBRATION_SUFFIXES]
    if not pictures:
        raise InputError(f"{folder}: contains no picture")
    return pictures


def calibration_pictures(folder: Path) -> list[Path]:
    """The pictures for the INT8 calibration: those in images/, else those in the folder itself.

    Raises InputError if there are none.
    """
    inner = folder / "images"
    return list_pictures(inner if inner.is_dir() else folder)
