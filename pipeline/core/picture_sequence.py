"""A folder of pictures that is taken for one clip. Imports nothing heavy."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pipeline.core.errors import InputError, UsageError
from pipeline.core.picture_paths import PICTURE_SUFFIXES
from pipeline.core.typed import convert_fields

_DIGITS = re.compile(r"(\d+)")


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureSequence:
    """The pictures of a folder as the frames of one clip, in natural order: 2 before 10.

    folder: of which the pictures are taken, without those of folders in it and hidden ones.
    frame_rate: of the clip, frames per second.
    """

    folder: Path
    frame_rate: Fraction

    def __post_init__(self) -> None:
        convert_fields(self)
        if not Fraction(1, 1000) <= self.frame_rate <= 1000:
            raise UsageError(f"frame rate must lie between 1/1000 and 1000, not {self.frame_rate}")

    @property
    def paths(self) -> list[Path]:
        """The pictures that are in the folder now. Raises InputError if there are none."""
        try:
            found = [p for p in self.folder.iterdir() if p.suffix.lower() in PICTURE_SUFFIXES]
        except OSError as error:
            raise InputError(f"{self.folder}: {error.strerror}") from error
        pictures = [path for path in found if not path.name.startswith(".")]
        if not pictures:
            raise InputError(
                f"{self.folder}: contains no picture; names searched for end in "
                f"{', '.join(PICTURE_SUFFIXES)}"
            )
        return sorted(pictures, key=_natural)

    def stamp(self) -> list[tuple[str, int, int]]:
        """Name, bytes, and ns of the last change of each picture. Raises OSError, InputError."""
        found = [(path.name, path.stat()) for path in self.paths]
        return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]

    @property
    def num_bytes(self) -> int:
        """Of all pictures. Raises OSError, InputError."""
        return sum(size for _, size, _ in self.stamp())


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = _DIGITS.split(path.name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name
