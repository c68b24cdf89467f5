"""Infers frames where boxes change, and interpolates where they do not."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from pipeline.core.boxes import Detections
from pipeline.frames.expected_error import LEAST_CONFIDENCE, Outlook, Surroundings, outlook
from pipeline.frames.glance import appearance, glance
from pipeline.frames.interpolate import Pairs
from pipeline.frames.links import InferredFrame, Link
from pipeline.frames.sampling import Choice, DetectedFrame, FoundFrame, fill_in
from pipeline.media.frame import Frame

AUDITED = 50
"""One of so many frames that are not inferred is inferred to be compared."""

_LEAST_GAIN = 0.1
"""A frame is inferred if that sets right so many boxes, as a share of the boxes of a frame."""

_LONGEST_GAP = 8
_LEAST_GAPS = 6
"""In work at the same time; more if more frames can be inferred at the same time."""

Found = Callable[[int], Detections]


@dataclass(frozen=True, slots=True)
class _Gap:
    """The frames between two that are inferred.

    was_looked_at: whether something that was seen in its pixels was inferred already.
    """

    across: Link
    around: Surroundings
    inner: list[Frame]
    was_looked_at: bool = False


class Adaptive:
    """Infers frames 0, N, 2N, ... and the last one, and what lies between where boxes change.

    Where boxes between two inferred frames are expected to be wrong, the one in the middle is
    inferred, and so on. What is inferred follows from the frames and their boxes alone. Of the
    others, a fixed share is inferred to be compared.

    most_frames: how many may be held at the same time; if they are few, N is less than eight.
    confidence_threshold: of the boxes that are asked for.
    """

    weakest_confidence = 0.1
    """A box that has become weak has not vanished."""

    def __init__(self, most_frames: int, confidence_threshold: float) -> None:
        self._most_frames, self._confidence_threshold = most_frames, confidence_threshold
        self._pairs: dict[int, Pairs] = {}

    @property
    def gap(self) -> int:
        """N."""
        gap = _LONGEST_GAP
        while gap > 1 and (_LEAST_GAPS + 1) * gap > self._most_frames:
            gap //= 2
        return gap

    def window(self, num_requests: int) -> int:
        gaps = min(num_requests + 2, self._most_frames // self.gap - 1)
        return (max(gaps, _LEAST_GAPS) + 1) * self.gap

    def choose(
        self, frames: Iterator[Frame], found: Found, window: int
    ) -> Iterator[tuple[Frame, Choice]]:
        first = next(frames, None)
        if first is None:
            return
        yield first, Choice.INFER
        begin = InferredFrame(first, found)
        yield from _Bisection(frames, found, begin, self).choices(window - self.gap)

    def fill_in(self, frames: Iterable[FoundFrame]) -> Iterator[DetectedFrame]:
        return fill_in(frames, lambda index: self._pairs.pop(index, None))

    def outlook(self, gap: _Gap) -> Outlook:
        """What is expected of the frames of a gap."""
        threshold = self._confidence_threshold
        return outlook(gap.across, gap.around, len(gap.inner), threshold)

    def appearance(self, gap: _Gap) -> int | None:
        """The place of a frame in which something appears between two without boxes; else None."""
        first, last = gap.across.first, gap.across.last
        least = max(LEAST_CONFIDENCE, self._confidence_threshold)
        if any(len(end.detections.above(least)) for end in (first, last)):
            return None
        return appearance(first.glance, [glance(frame.seen) for frame in gap.inner], last.glance)

    def keep_pairs(self, gap: _Gap, pairs: Pairs) -> None:
        """Keep the pairs of the boxes at both ends of a gap, for `fill_in`."""
        self._pairs[gap.across.first.index] = pairs


def frames_in_half(max_memory_mb: int, frame_bytes: int) -> int:
    """How many frames take half of the memory for decoded frames."""
    return max_memory_mb * 1_000_000 // 2 // frame_bytes


class _Bisection:
    """The choices for the frames behind the first one.

    Several gaps are in work at the same time, in turn, so that there is always something to infer
    while the results of one are waited for.
    """

    def __init__(
        self, frames: Iterator[Frame], found: Found, begin: InferredFrame, sampler: Adaptive
    ) -> None:
        self._frames, self._found, self._sampler = frames, found, sampler
        self._gap = sampler.gap
        self._end = begin
        self._is_over = False
        self._gaps: deque[_Gap] = deque()
        self._newest: _Gap | None = None

    def choices(self, most_ahead: int) -> Iterator[tuple[Frame, Choice]]:
        """most_ahead: how many frames may be read behind the oldest without a choice."""
        while True:
            while self._may_read(most_ahead):
                yield from self._read()
            if not self._gaps:
                return
            yield from self._decide(self._gaps.popleft())

    def _may_read(self, most_ahead: int) -> bool:
        if self._is_over or not self._gaps:
            return not self._is_over
        oldest = min(gap.across.first.index for gap in self._gaps)
        return self._end.index - oldest + self._gap <= most_ahead

    def _read(self) -> Iterator[tuple[Frame, Choice]]:
        """Read the frames of the next gap; the one before it can then be decided."""
        frames = list(islice(self._frames, self._gap))
        self._is_over = len(frames) < self._gap
        before, link = self._newest, None
        if frames:
            yield frames[-1], Choice.INFER
            link = Link(self._end, InferredFrame(frames[-1], self._found))
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
        expected = self._sampler.outlook(gap)
        if expected.gain >= _LEAST_GAIN:
            yield from self._split(gap, len(gap.inner) // 2)
            return
        place = None if gap.was_looked_at else self._sampler.appearance(gap)
        if place is not None:
            yield from self._split(replace(gap, was_looked_at=True), place)
            return
        self._sampler.keep_pairs(gap, expected.pairs)
        for frame in gap.inner:
            yield frame, Choice.AUDIT if _is_audited(frame.index) else Choice.LEAVE

    def _split(self, gap: _Gap, place: int) -> Iterator[tuple[Frame, Choice]]:
        """Infer the frame at a place of the gap, and decide on both sides later."""
        inner, around, seen = gap.inner, gap.around, gap.was_looked_at
        yield inner[place], Choice.INFER
        middle = InferredFrame(inner[place], self._found)
        one, other = Link(gap.across.first, middle), Link(middle, gap.across.last)
        self._gaps.append(_Gap(one, Surroundings(around.before, other), inner[:place], seen))
        self._gaps.append(_Gap(other, Surroundings(one, around.behind), inner[place + 1 :], seen))


def _is_audited(index: int) -> bool:
    return zlib.crc32(index.to_bytes(8, "little")) % AUDITED == 0
