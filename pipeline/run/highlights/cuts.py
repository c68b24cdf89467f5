"""Detection lines, or events -> the stretches of a clip that show them, with padding."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from pipeline.core.detection_lines import DetectedFrame
from pipeline.run.events.follow import Events

_MICROSECONDS = 1_000_000
_ROUNDING = 1
"""Microseconds: times in lines have six decimals."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Frames in which something is found or happens: their indices, both included."""

    first_frame: int
    last_frame: int
    name: str


@dataclass(frozen=True, slots=True)
class Cut:
    """Frames that follow each other, with a find or event among them.

    first_frame, end_frame: their indices, the second one outside. begin_seconds, end_seconds: when
    they are shown. begin_pts, end_pts: of the first and the last frame, in ticks of the source;
    None where it has none. names: of what is in it, the most frequent first.
    """

    first_frame: int
    end_frame: int
    begin_seconds: float
    end_seconds: float
    begin_pts: int | None
    end_pts: int | None
    names: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        return self.end_frame - self.first_frame

    @property
    def title(self) -> str:
        return ", ".join(self.names)


def stretches_of_finds(frames: Iterable[DetectedFrame]) -> Iterator[Stretch]:
    """A stretch for each class in each frame."""
    for frame in frames:
        for name in dict.fromkeys(box.class_name for box in frame.boxes):
            yield Stretch(frame.frame_index, frame.frame_index, name)


def stretches_of_events(events: Events) -> Iterator[Stretch]:
    """A stretch for each crossing, and for each visit from its first to its last frame."""
    for crossing in events.crossings:
        index = crossing.at.frame_index
        yield Stretch(index, index, f"{crossing.class_name} {crossing.direction} {crossing.line}")
    for visit in events.visits:
        name = f"{visit.class_name} at {visit.zone}"
        yield Stretch(visit.begin.frame_index, visit.end.frame_index, name)


def cuts_of(
    frames: Iterable[DetectedFrame],
    stretches: Iterable[Stretch],
    padding_seconds: float,
    frame_rate: Fraction,
) -> list[Cut]:
    """The cuts of a clip, in order; those that overlap or touch are one.

    frames: all of the clip. A frame is in a cut if it is shown at most padding_seconds before the
    first or after the last frame of a stretch, or between them. frame_rate: for the time at which
    the last frame of the clip ends.
    """
    microseconds, pts = array("q"), array("q")
    no_pts = False
    for frame in frames:
        microseconds.append(round(frame.pts_seconds * _MICROSECONDS))
        pts.append(frame.pts or 0)
        no_pts = no_pts or frame.pts is None
    times = np.frombuffer(microseconds, np.int64)
    padding = round(padding_seconds * _MICROSECONDS) + _ROUNDING
    found = _merged(_padded(times, stretches, padding))
    last_ends = 0.0
    if len(times):
        last_ends = float(Fraction(int(times[-1]), _MICROSECONDS) + 1 / frame_rate)
    return [
        Cut(
            first,
            end,
            microseconds[first] / _MICROSECONDS,
            microseconds[end] / _MICROSECONDS if end < len(times) else last_ends,
            None if no_pts else pts[first],
            None if no_pts else max(pts[first:end]),
            tuple(name for name, _ in names.most_common()),
        )
        for first, end, names in found
    ]


def _padded(
    times: NDArray[np.int64], stretches: Iterable[Stretch], padding: int
) -> Iterator[tuple[int, int, str]]:
    for stretch in stretches:
        first = np.searchsorted(times, times[stretch.first_frame] - padding)
        end = np.searchsorted(times, times[stretch.last_frame] + padding, "right")
        yield int(first), int(end), stretch.name


def _merged(padded: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, Counter[str]]]:
    found: list[tuple[int, int, Counter[str]]] = []
    for first, end, name in sorted(padded):
        if found and first <= found[-1][1]:
            before, before_end, names = found[-1]
            names[name] += 1
            found[-1] = (before, max(before_end, end), names)
        else:
            found.append((first, end, Counter([name])))
    return found


def num_frames_in(cuts: Sequence[Cut]) -> int:
    """How many frames are in any of them."""
    return sum(cut.num_frames for cut in cuts)
