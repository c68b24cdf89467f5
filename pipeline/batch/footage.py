"""The amount of footage according to the headers of clips; no frame is decoded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from pipeline.core.config import DEFAULT_LIMITS, LimitOptions
from pipeline.core.errors import InputError
from pipeline.core.notes import note
from pipeline.media.container import exact, open_input
from pipeline.media.picture_track import picture_track

_USUAL_RATE = Fraction(25)


@dataclass(frozen=True, slots=True)
class ClipHeader:
    """The frames and frame rate in the header of a clip, and the size of its file."""

    path: Path
    num_frames: int
    frame_rate: Fraction
    num_bytes: int

    @property
    def seconds(self) -> float:
        return float(self.num_frames / self.frame_rate)


def read_headers(paths: Iterable[Path]) -> list[ClipHeader]:
    """The readable headers, with a note for each other clip. Raises InputError if there is none."""
    headers, errors = [], []
    for path in paths:
        try:
            headers.append(read_header(path))
        except InputError as error:
            note(f"left out: {error}")
            errors.append(error)
    if not headers:
        raise errors[0]
    return headers


def read_size_wh(path: Path, limits: LimitOptions = DEFAULT_LIMITS) -> tuple[int, int]:
    """The size of a picture as it is stored, not turned. Raises InputError."""
    with open_input(path, limits) as container:
        stream, _ = picture_track(path, container)
        return stream.width, stream.height


def read_header(path: Path, limits: LimitOptions = DEFAULT_LIMITS) -> ClipHeader:
    """The header of a clip. Raises InputError if it cannot be read or contains no length."""
    with open_input(path, limits) as container:
        stream, _ = picture_track(path, container)
        rate = exact(stream.average_rate or stream.guessed_rate) or _USUAL_RATE
        time_base = exact(stream.time_base)
        if stream.duration is not None and time_base is not None:
            seconds = stream.duration * time_base
        else:
            seconds = Fraction(container.duration or 0, av.time_base)
        num_frames = stream.frames or round(seconds * rate)
        if num_frames < 1:
            raise InputError(f"{path}: its header does not contain its length")
        if seconds > 0:
            rate = num_frames / seconds
        return ClipHeader(path, num_frames, rate, path.stat().st_size)
