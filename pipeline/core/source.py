"""What frames come from: a clip, pictures or a synthetic clip. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.core.files import file_sha256, file_stamp


class Source(Protocol):
    """A source of any kind; `frames.source` opens it."""

    @property
    def file(self) -> Path | None:
        """The file that frames come from; None for many, and for the synthetic scene."""

    def stamp(self) -> Any:
        """Plain values that identify it without reading content of clips. Raises OSError."""

    def content(self, beat: Callable[[], object]) -> Any:
        """Plain values that identify it, with hashes of all content. Raises OSError.

        beat: called while it reads.
        """

    def num_bytes(self) -> int | None:
        """The size of what frames are read from; None for the synthetic scene. Raises OSError."""

    def absolute(self) -> Any:
        """The same source for a ProcessConfig, independent of the current folder."""


@dataclass(frozen=True, slots=True)
class ClipFile:
    """A clip or a single picture."""

    path: Path

    @property
    def file(self) -> Path | None:
        return self.path

    def stamp(self) -> Any:
        return file_stamp(self.path)

    def content(self, beat: Callable[[], object]) -> Any:
        return [self.path.name, self.path.stat().st_size, file_sha256(self.path, beat)]

    def num_bytes(self) -> int | None:
        with self.path.open("rb"):  # Raises OSError for one that cannot be read.
            return self.path.stat().st_size

    def absolute(self) -> Path:
        return self.path.absolute()
