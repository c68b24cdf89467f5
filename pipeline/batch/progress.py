"""The progress of the clips of a batch, combined to that of all.

Imports nothing heavy: the parent process uses it.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.core.picture_paths import PICTURE_SUFFIXES
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.core.text import counted


@dataclass(slots=True)
class _Clip:
    """num_bytes: of its file; 0 for a picture, and where it is not known. expected: frames."""

    num_bytes: int
    expected: int
    done: int = 0


class BatchProgress:
    """Reports the frames of all clips; any thread may tell of one.

    No clip is opened for that: the frames of clips that have not begun are estimated from the size
    of their files, and the frames by size of the others. A picture is one frame.
    """

    def __init__(self, paths: Iterable[Path], on_progress: ProgressCallback) -> None:
        named = [*paths]
        self._clips, self._names = [_of(path) for path in named], [str(path) for path in named]
        self._on_progress = on_progress
        self._lock = threading.Lock()
        self._begun: set[int] = set()
        self._with_frames: set[int] = set()
        self._num_finished = 0
        self._done = self._expected_of_begun = self._bytes_of_begun = 0
        self._pictures_left = sum(clip.expected for clip in self._clips)
        self._bytes_left = sum(clip.num_bytes for clip in self._clips)

    def tell(self, number: int, progress: Progress) -> None:
        """Report what a clip reports; while frames of others run, not what it does before its own.

        number: of the clip, in order.
        """
        with self._lock:
            if progress.stage != "frames":
                if not self._with_frames:
                    self._on_progress(replace(progress, clip=self._names[number]))
                return
            self._with_frames.add(number)
            self._set(number, progress.done, max(progress.done, progress.total or 0))
            self._tell(number)

    def finished(self, number: int) -> None:
        """Record that a clip has no more frames."""
        with self._lock:
            done = self._clips[number].done
            self._set(number, done, done)
            self._with_frames.discard(number)
            self._num_finished += 1
            self._tell(number)

    def _set(self, number: int, done: int, expected: int) -> None:
        clip = self._clips[number]
        if number not in self._begun:
            self._begun.add(number)
            self._bytes_left -= clip.num_bytes
            self._pictures_left -= clip.expected
            self._bytes_of_begun += clip.num_bytes
            clip.expected = 0
        self._done += done - clip.done
        self._expected_of_begun += expected - clip.expected
        clip.done, clip.expected = done, expected

    def _tell(self, number: int) -> None:
        total: int | None = self._expected_of_begun + self._pictures_left
        if self._bytes_left:
            known = self._bytes_of_begun and self._expected_of_begun / self._bytes_of_begun
            total = total + round(known * self._bytes_left) if known and total is not None else None
        subject = f"{self._num_finished} of {counted(len(self._clips), 'clip')} finished"
        self._on_progress(
            Progress("frames", self._done, total, subject=subject, clip=self._names[number])
        )


def _of(path: Path) -> _Clip:
    if path.suffix.lower() in PICTURE_SUFFIXES:
        return _Clip(0, 1)
    with contextlib.suppress(OSError):
        return _Clip(path.stat().st_size, 0)
    return _Clip(0, 0)
