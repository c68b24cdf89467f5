"""Files that must not change while a run reads them."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Protocol

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InputError, SourceChanged
from pipeline.core.files import file_state
from pipeline.core.picture_sequence import PictureSequence


class Watched(Protocol):
    """The input of a run, as it was when the run began.

    fingerprint: of the content of a file; None where there is not one file, or it cannot be read.
    """

    @property
    def fingerprint(self) -> str | None: ...

    def require_unchanged(self) -> None:
        """Raise SourceChanged if it has changed or is missing."""


def watched_source(config: ProcessConfig) -> Watched:
    """The input of a run, in its current state."""
    return WatchedPictures(config.pictures) if config.pictures else WatchedFile(config.origin.file)


class WatchedPictures:
    """The pictures of a folder: their names, sizes, and the times of their last changes.

    Raises InputError if there are none.
    """

    fingerprint: str | None = None

    def __init__(self, sequence: PictureSequence) -> None:
        self._sequence = sequence
        self._before = _pictures(sequence)

    def require_unchanged(self) -> None:
        """Raise SourceChanged if a picture has changed, is missing, or is new."""
        folder, now = self._sequence.folder, _pictures(self._sequence)
        if now != self._before:
            names = {name for name, _, _ in set(now) ^ set(self._before)}
            raise SourceChanged(
                f"{folder}: {min(names)} changed while it was processed; no output was written: "
                "run the command again when it is no longer written to"
            )


def _pictures(sequence: PictureSequence) -> list[tuple[Any, ...]]:
    try:
        return [tuple(stamp) for stamp in sequence.stamps()]
    except (OSError, InputError) as error:
        raise SourceChanged(f"{error}; no output was written") from error


class WatchedFile:
    """The current state of a file: its modification time, size, and samples of its content.

    path: None, or a file that cannot be read, is not watched: opening it reports the reason.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._before: tuple[str, int] | None = None
        with contextlib.suppress(OSError, ValueError):
            if path is not None and path.is_file():
                self._before = file_state(path)

    @property
    def fingerprint(self) -> str | None:
        return self._before and self._before[0]

    def require_unchanged(self) -> None:
        """Raise SourceChanged if the file has changed or is missing."""
        if self._path is None or self._before is None:
            return
        try:
            now = file_state(self._path)
        except OSError as error:
            raise SourceChanged(
                f"{self._path}: can no longer be read ({error.strerror}); no output was written"
            ) from error
        if now != self._before:
            raise SourceChanged(
                f"{self._path}: changed while it was processed; no output was written: run the "
                "command again when it is no longer written to"
            )
