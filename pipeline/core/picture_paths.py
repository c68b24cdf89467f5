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
_FILM_SUFFIXES = (".avif", ".gif", ".webp")
_APNG_MARK, _APNG_BYTES = b"acTL", 65_536
_CALIBRATION_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


def is_surely_picture(path: Path) -> bool:
    """Whether a file is a single picture by its name, whose format has no films of pictures."""
    suffix = path.suffix.lower()
    if suffix not in PICTURE_SUFFIXES or suffix in _FILM_SUFFIXES or not path.is_file():
        return False
    try:
        with path.open("rb") as file:
            return suffix != ".png" or _APNG_MARK not in file.read(_APNG_BYTES)
    except OSError:
        return False


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
