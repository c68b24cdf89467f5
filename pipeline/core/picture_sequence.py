"""A folder of pictures that is taken for one clip. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.core.errors import InputError, UsageError
from pipeline.core.files import file_sha256, file_stamp
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
            raise UsageError(
                f"--frame-rate must lie between 1/1000 and 1000, not {self.frame_rate}"
            )

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
                f"{self.folder}: contains no picture; searched for names ending in "
                f"{', '.join(PICTURE_SUFFIXES)}"
            )
        return sorted(pictures, key=_natural)

    def stamps(self) -> list[list[Any]]:
        """Those of the files of all pictures. Raises OSError, InputError."""
        return [file_stamp(path) for path in self.paths]

    # The members of `Source`. All but `file` and `absolute` raise InputError, too.

    @property
    def file(self) -> Path | None:
        return None

    def stamp(self) -> Any:
        return [str(self.frame_rate), self.stamps()]

    def content(self, beat: Callable[[], object]) -> Any:
        return [str(self.frame_rate), [(p.name, file_sha256(p, beat)) for p in self.paths]]

    def num_bytes(self) -> int | None:
        return sum(int(size) for _, size, _ in self.stamps())

    def absolute(self) -> PictureSequence:
        return replace(self, folder=self.folder.absolute())


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    parts = _DIGITS.split(path.name.casefold())
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name
