"""A stretch of a text file, which stays there until it is read or travels to another process."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class PackedText:
    """A text, compressed by zlib."""

    packed: bytes

    def text(self) -> str:
        return zlib.decompress(self.packed).decode()


@dataclass(frozen=True, slots=True)
class FilePart:
    """The bytes of a file from begin on and before end. Where it is sent, it is a PackedText."""

    path: Path
    begin: int
    end: int

    def text(self) -> str:
        """Raises OSError."""
        return self._read().decode()

    def __reduce__(self) -> tuple[Any, ...]:
        return PackedText, (zlib.compress(self._read(), 1),)

    def _read(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.begin)
            return file.read(self.end - self.begin)
