"""Infers frames where boxes change, and interpolates where they do not."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from pipeline.core.boxes import Detections
from pipeline.frames.expected_error import (
    InferredFrame,
    Link,
    Surroundings,
    expected_wrong_share,
)
from pipeline.frames.sampling import Choice, DetectedFrame, FoundFrame, fill_in
from pipeline.media.frame import Frame

AUDITED = 50
"""One of so many frames that are not inferred is inferred to be compared."""

_MOST_WRONG = 0.06
_LONGEST_GAP = 8
_GAPS_AT_ONCE = 6

Found = Callable[[int], Detections]


@dataclass(frozen=True, slots=True)
class _Gap:
    """The frames between two that are inferred."""

    across: Link
    around: Surroundings
    inner: list[Frame]


class Adaptive:
    """Infers frames 0, N, 2N, ... and the last one, and what lies between where boxes change.

    Where the boxes of two inferred frames do not let expect that those between them can be
    interpolated, the one in the middle is inferred, and so on. What is inferred follows from the
    frames and their boxes alone. Of the others, a fixed share is inferred to be compared.

    gap: N.
    """

    weakest_confidence = 0.1
    """A box that has become weak has not vanished."""

    def __init__(self, gap: int) -> None:
        self._gap = gap

    @property
    def window(self) -> int:
        return (_GAPS_AT_ONCE + 1) * self._gap

    def choose(self, frames: Iterator[Frame], found: Found) -> Iterator[tuple[Frame, Choice]]:
        first = next(frames, None)
        if first is None:
            return
        yield first, Choice.INFER
        begin = InferredFrame(first.index, first.pts, found)
        yield from _Bisection(frames, found, begin, self._gap).choices()

    def fill_in(self, frames: Iterable[FoundFrame]) -> Iterator[DetectedFrame]:
        return fill_in(frames)


def gap_for(frame_bytes: int, max_memory_mb: int) -> int:
    """How far apart frames may be inferred, that those in work take half of the memory at most."""
    gap = _LONGEST_GAP
    while gap > 1 and Adaptive(gap).window * frame_bytes > max_memory_mb * 1_000_000 // 2:
        gap //= 2
    return gap


class _Bisection:
    """The choices for the frames behind the first one.

    Several gaps are in work at the same time, in turn, so that there is always something to infer
    while the results of one are waited for.
    """

    def __init__(
        self, frames: Iterator[Frame], found: Found, begin: InferredFrame, gap: int
    ) -> None:
        self._frames, self._found, self._gap = frames, found, gap
        self._end = begin
        self._is_over = False
        self._gaps: deque[_Gap] = deque()
        self._newest: _Gap | None = None

    def choices(self) -> Iterator[tuple[Frame, Choice]]:
        while True:
            while self._may_read():
                yield from self._read()
            if not self._gaps:
                return
            yield from self._decide(self._gaps.popleft())

    def _may_read(self) -> bool:
        if self._is_over or not self._gaps:
            return not self._is_over
        oldest = min(gap.across.first.index for gap in self._gaps)
        return self._end.index - oldest + self._gap <= _GAPS_AT_ONCE * self._gap

    def _read(self) -> Iterator[tuple[Frame, Choice]]:
        """Read the frames of the next gap; the one before it can then be decided."""
        frames = list(islice(self._frames, self._gap))
        self._is_over = len(frames) < self._gap
        before, link = self._newest, None
        if frames:
            yield frames[-1], Choice.INFER
            link = Link(self._end, InferredFrame(frames[-1].index, frames[-1].pts, self._found))
            self._end = link.last
        if before is not None:
            around = Surroundings(before.around.before, link)
            self._gaps.append(replace(before, around=around))
        self._newest = None
        if link is not None:
            around = Surroundings(before.across if before else None, None)
            newest = _Gap(link, around, frames[:-1])
            if self._is_over:
                self._gaps.append(newest)
            else:
                self._newest = newest

    def _decide(self, gap: _Gap) -> Iterator[tuple[Frame, Choice]]:
        if not gap.inner:
            return
        if expected_wrong_share(gap.across, gap.around) <= _MOST_WRONG:
            for frame in gap.inner:
                yield frame, Choice.AUDIT if _is_audited(frame.index) else Choice.LEAVE
            return
        place = len(gap.inner) // 2
        middle = gap.inner[place]
        yield middle, Choice.INFER
        inferred = InferredFrame(middle.index, middle.pts, self._found)
        one, other = Link(gap.across.first, inferred), Link(inferred, gap.across.last)
        around = gap.around
        self._gaps.append(_Gap(one, Surroundings(around.before, other), gap.inner[:place]))
        self._gaps.append(_Gap(other, Surroundings(one, around.behind), gap.inner[place + 1 :]))


def _is_audited(index: int) -> bool:
    return zlib.crc32(index.to_bytes(8, "little")) % AUDITED == 0
