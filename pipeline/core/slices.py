"""The slice of a clip that --start and --end ask for: from a time or frame up to another one."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

_FRAME = re.compile(r"(\d+)f")
_CLOCK = re.compile(r"(?:(\d{1,6}):)?([0-5]?\d):([0-5]?\d(?:\.\d+)?)")
_LATEST_SECONDS = 1e9
_ROUNDING_SECONDS = Fraction(1, 2_000_000)
"""Half the last digit of pts_seconds: a time that was copied from a line finds its frame."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time in seconds from 0 on, or the index of a frame; the other one is None."""

    seconds: Fraction | None = None
    frame: int | None = None

    def __str__(self) -> str:
        if self.seconds is None:
            return f"{self.frame}f"
        decimal = f"{float(self.seconds):.9f}".rstrip("0").rstrip(".")
        return decimal if Fraction(decimal) == self.seconds else str(self.seconds)

    def index(self, num_frames: int, seconds_of: Callable[[int], Fraction]) -> int:
        """The first frame that is not before this moment; num_frames if all are.

        seconds_of: when the frame of an index is shown.
        """
        if self.frame is not None:
            return min(self.frame, num_frames)
        assert self.seconds is not None
        earliest = self.seconds - _ROUNDING_SECONDS
        return bisect_left(range(num_frames), earliest, key=seconds_of)


def read_moment(value: str | float | Fraction) -> Moment:
    """Of seconds (12.5), hh:mm:ss.ms or mm:ss, or a frame (120f). Raises ValueError."""
    text = str(value).strip()
    if found := _FRAME.fullmatch(text):
        return Moment(frame=int(found[1]))
    try:
        if found := _CLOCK.fullmatch(text):
            hours, minutes, seconds = found.groups()
            return Moment(3600 * int(hours or 0) + 60 * int(minutes) + Fraction(seconds))
        # float first: a Fraction of 1e999999999 takes for ever.
        moment = Moment(Fraction(text) if "/" in text or float(text) < _LATEST_SECONDS else None)
    except (ValueError, ZeroDivisionError):
        moment = Moment(Fraction(-1))
    if moment.seconds is None or moment.seconds < 0:
        raise ValueError(
            f"{text!r} is neither a time, as in 12.5 or 1:02:03.5, nor a frame, as in 120f"
        )
    return moment


@dataclass(frozen=True, slots=True)
class Slice:
    """The frames from start on and before end; None for where the clip begins or ends."""

    start: Moment | None
    end: Moment | None

    def __str__(self) -> str:
        moments = (("--start", self.start), ("--end", self.end))
        return " ".join(f"{name} {moment}" for name, moment in moments if moment is not None)

    @property
    def is_surely_empty(self) -> bool:
        """Whether the end is not behind the start, of any clip."""
        start, end = self.start or Moment(frame=0), self.end
        if end is None:
            return False
        if start.frame is not None and end.frame is not None:
            return end.frame <= start.frame
        if start.seconds is not None and end.seconds is not None:
            return end.seconds <= start.seconds
        return end.seconds == 0 or end.frame == 0

    def frames(self, num_frames: int, seconds_of: Callable[[int], Fraction]) -> range:
        """The indices of its frames; empty if there are none.

        num_frames: of the clip. seconds_of: when the frame of an index is shown; it grows.
        """
        start = self.start.index(num_frames, seconds_of) if self.start else 0
        end = self.end.index(num_frames, seconds_of) if self.end else num_frames
        return range(start, max(start, end))
