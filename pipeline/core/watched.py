"""Files that must not change while a run reads them."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import Protocol

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InputError, SourceChanged
from pipeline.core.picture_sequence import PictureSequence

_NUM_SAMPLES, _SAMPLE_BYTES = 16, 1 << 16


class Watched(Protocol):
    """What a run reads, as it was when the run began."""

    def require_unchanged(self) -> None:
        """Raise SourceChanged if it is another one now, or gone."""


def watched_source(config: ProcessConfig) -> Watched:
    """What the frames of a run come from, as it is now."""
    if isinstance(config.source, PictureSequence):
        return WatchedPictures(config.source)
    return WatchedFile(config.source_file)


class WatchedPictures:
    """The pictures of a folder: their names, sizes, and the times of their last changes.

    Raises InputError if there are none.
    """

    def __init__(self, sequence: PictureSequence) -> None:
        self._sequence = sequence
        self._before = _pictures(sequence)

    def require_unchanged(self) -> None:
        """Raise SourceChanged if one is another one now, gone, or new."""
        folder, now = self._sequence.folder, _pictures(self._sequence)
        if now != self._before:
            names = {name for name, _, _ in set(now) ^ set(self._before)}
            raise SourceChanged(
                f"{folder}: {min(names)} changed while it was processed; no output was written: "
                "run the command again when nothing writes there any more"
            )


def _pictures(sequence: PictureSequence) -> list[tuple[str, int, int]]:
    try:
        return sequence.stamp()
    except (OSError, InputError) as error:
        raise SourceChanged(f"{error}; no output was written") from error


class WatchedFile:
    """A file as it is now: its size, the time of its last change, and samples of its content.

    path: None, and what cannot be read as a file, is not watched: whoever opens it says why.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._before: tuple[int, int, bytes] | None = None
        with contextlib.suppress(OSError, ValueError):
            if path is not None and path.is_file():
                self._before = _state(path)

    def require_unchanged(self) -> None:
        """Raise SourceChanged if the file is another one now, or gone."""
        if self._path is None or self._before is None:
            return
        try:
            now = _state(self._path)
        except OSError as error:
            raise SourceChanged(
                f"{self._path}: cannot be read any more ({error.strerror}); no output was written"
            ) from error
        if now != self._before:
            raise SourceChanged(
                f"{self._path}: changed while it was processed; no output was written: run the "
                "command again when nothing writes to it any more"
            )


def _state(path: Path) -> tuple[int, int, bytes]:
    found = path.stat()
    digest = hashlib.sha256()
    with path.open("rb") as file:
        for number in range(_NUM_SAMPLES):
            file.seek(max(0, found.st_size - _SAMPLE_BYTES) * number // (_NUM_SAMPLES - 1))
            digest.update(file.read(_SAMPLE_BYTES))
    return found.st_size, found.st_mtime_ns, digest.digest()
