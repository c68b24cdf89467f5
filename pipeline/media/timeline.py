"""The rules of time: time stamps as a file has them -> times as a player shows them, from 0.

Pure: values over the times of packets and frames. Nothing here reads a file.

- 0 is the earliest beginning among picture and sound, so the offsets between them stay. Sound
  that begins more than `MOST_LEAD_SECONDS` before the picture does not count: 0 is then the
  picture, and what sounds before it is not carried.
- Where recordings were joined, all streams of the second one are shifted by the same time: by so
  much that none of them begins before it has ended in the first.
- Sound whose times have nothing to do with those of the picture begins with the picture if it
  lasts as long, and is left out otherwise.
"""

from __future__ import annotations

import itertools
import statistics
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from heapq import heappop, heappush
from typing import TypeVar

from pipeline.media.jumps import Shift, ordinal_of

Image = TypeVar("Image")

MOST_TICKS = 2**31 - 1
"""The longest time between two frames or packets that an MP4 file can keep, in ticks."""
MOST_LEAD_SECONDS = 10
PREROLL_SECONDS = Fraction(1, 5)
"""Sound so long before 0 is kept: decoders start with it, and players do not play it."""

_OTHER_CLOCK_SECONDS = 60
"""Sound that ends so long before the picture begins, or the other way round, has another clock."""
_USUAL_SECONDS = Fraction(1, 25)
_FINEST_TIME_BASE = 1_000_000
_COARSER_TIME_BASES = (90_000, _FINEST_TIME_BASE, 10_000, 1000)
_SAME_RATE = 0.05


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of a video packet without decoding it; pts, dts and duration in ticks.

    duration: 0 where it is not known. is_discard: whether an edit list hides its frame.
    """

    pts: int | None
    dts: int | None
    is_keyframe: bool
    duration: int = 0
    is_discard: bool = False


@dataclass(frozen=True, slots=True)
class Span:
    """From when to when a stream is shown or heard, in seconds."""

    start: Fraction
    end: Fraction


def origin_of(video: Span, sounds: Iterable[Span]) -> Fraction:
    """The time that becomes 0: of the first picture, or of sound that begins a little before."""
    earliest = video.start - MOST_LEAD_SECONDS
    return min([video.start, *(s.start for s in sounds if s.start >= earliest)])


def has_other_clock(video: Span, sound: Span, least_gap_seconds: int = 0) -> bool:
    """Whether the times of a sound have nothing to do with those of the picture."""
    gap = max(sound.start - video.end, video.start - sound.end)
    return gap > max(_OTHER_CLOCK_SECONDS, least_gap_seconds)


def lasts_as_long(video: Span, sound: Span) -> bool:
    """Whether a sound can be that of the picture, to judge by how long it is."""
    lengths = (video.end - video.start, sound.end - sound.start)
    return abs(lengths[0] - lengths[1]) <= max(Fraction(1), max(lengths) / 10)


@dataclass(frozen=True, slots=True)
class Clock:
    """Turns the time stamps of one stream of a file into times of the result.

    origin: the ticks that become 0, those of joined recordings closed.
    """

    time_base: Fraction
    origin: int = 0
    shifts: tuple[Shift, ...] = ()

    def shift(self, ordinal: int) -> int:
        """What closes joins: the ticks to add to the time stamps of the stream's n-th packet."""
        if not self.shifts:
            return 0
        behind = bisect_right(self.shifts, ordinal, key=ordinal_of)
        return self.shifts[behind - 1].ticks if behind else 0


class PacketClock:
    """Gives the packets of one stream their times in the result, in order.

    Times are those of the source from 0 on. Where they repeat or fall back, which MP4 does not
    take, that packet is moved by a tick, and all others stay in place.
    must_grow: False for packets that are decoded: of short ones, many have the same time on a
        coarse clock.
    from_zero: whether one that is shown before 0 and on is to begin at 0, as a subtitle can.
    """

    def __init__(self, clock: Clock, *, must_grow: bool = True, from_zero: bool = False) -> None:
        self._from_zero = from_zero
        self._clock = clock
        self._must_grow = must_grow
        self._ordinal = -1
        self._last_dts: int | None = None
        self._step = 0

    def place(
        self, pts: int | None, dts: int | None, duration: int
    ) -> tuple[int | None, int | None, int] | None:
        """The next packet's pts, dts and duration, in its own ticks; None if it is not heard.

        duration: 0 where it is not known; then it is that of the packet before.
        """
        self._ordinal += 1
        move = self._clock.shift(self._ordinal) - self._clock.origin
        pts, dts = (None if time is None else time + move for time in (pts, dts))
        time = pts if pts is not None else dts
        preroll = PREROLL_SECONDS / self._clock.time_base
        if time is not None and time + duration <= 0 and time < -preroll:
            return None
        if self._from_zero and time is not None and time < 0 < time + duration:
            pts, dts, duration = 0, 0, time + duration
        if dts is not None:
            if self._must_grow and self._last_dts is not None and dts <= self._last_dts:
                dts = self._last_dts + 1
                pts = pts if pts is None else max(pts, dts)
            if self._last_dts is not None:
                self._step = dts - self._last_dts
            self._last_dts = dts
        return pts, dts, duration or self._step


@dataclass(frozen=True, slots=True)
class Stretch:
    """The part of a clip that a slice takes.

    start_pts, end_pts: where its first frame and the one behind it are shown, in ticks of the
        result; None where it ends with the clip. seek_pts: a key frame from which it can be
        decoded, in ticks of the file; None if one has to begin with the clip. is_seekable: whether
        the time stamps of the whole clip allow that.
    first_index: the number of frames before it. seconds_before: from 0 of the whole clip to its
        first frame.
    """

    start_pts: int
    end_pts: int | None
    seek_pts: int | None
    first_index: int
    seconds_before: Fraction = Fraction(0)
    is_seekable: bool = True


@dataclass(frozen=True, slots=True)
class Timeline:
    """How the times of a clip become those of its result.

    video, others: the clocks of the picture and, by index, of the streams to be carried.
    time_base: of the result's picture, seconds per tick. frame_rate: what the times of the frames
        support; None where there is none.
    num_frames: how many are to be shown, by the packets read. num_key_frames: of them. num_hidden:
        packets of which none is shown.
    has_times: whether the file says when frames are shown; else they follow at the frame rate.
    hidden_before: frames before these ticks of the file are not shown.
    reorder_depth: by so many frames a time may come too late; 0 where times only grow.
    start, end: where the first frame begins and the last one ends, in ticks of the result;
        last_pts: of the last frame, in ticks of the file with joins closed. None where the clip
        was not read to its end.
    part_starts: since which ticks each shift of the picture holds.
    first_place: of the first frame of the file if it has no time, in ticks of the result.
    stretch: which frames are taken; None for all. Then start, end and the numbers of frames are
        those of the stretch, and the origins those of its first frame.
    left_out: why a stream cannot be carried, by index. notes: what was mended beyond that.
    """

    video: Clock
    time_base: Fraction
    frame_rate: Fraction | None
    num_frames: int
    num_hidden: int = 0
    num_key_frames: int = 0
    is_complete: bool = False
    others: dict[int, Clock] = field(default_factory=dict)
    has_times: bool = True
    hidden_before: int | None = None
    reorder_depth: int = 0
    last_pts: int | None = None
    start: int = 0
    end: int | None = None
    part_starts: tuple[int, ...] = ()
    left_out: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    first_place: int = 0
    stretch: Stretch | None = None

    @property
    def offset_seconds(self) -> Fraction:
        """The time in the file that is 0 in the result."""
        return self.video.origin * self.video.time_base

    @property
    def usual_ticks(self) -> int:
        """How long a frame lasts where nothing else says so."""
        seconds = 1 / self.frame_rate if self.frame_rate else _USUAL_SECONDS
        return max(1, round(seconds / self.time_base))

    def shown(self, pts: int) -> int:
        """Ticks of the file, joins closed, -> ticks of the result."""
        ticks = pts - self.video.origin
        if self.video.time_base == self.time_base:
            return ticks
        return round(ticks * self.video.time_base / self.time_base)

    def closed(self, shown: int) -> int:
        """Ticks of the result -> ticks of the file, joins closed."""
        return self.video.origin + round(shown * self.time_base / self.video.time_base)

    def source_pts(self, pts: int) -> int:
        """Ticks of the file, joins closed -> ticks as they stand in it."""
        part = bisect_right(self.part_starts, pts) - 1
        return pts - self.video.shifts[part].ticks if part >= 0 else pts

    def is_hidden(self, pts: int | None) -> bool:
        return pts is not None and self.hidden_before is not None and pts < self.hidden_before


class FrameTimes:
    """Gives frames their places in the result, in the order in which they are shown."""

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self._last: int | None = None

    def place(self, pts: int | None) -> tuple[int, bool]:
        """Ticks of the file, joins closed, or None -> ticks of the result, which always grow.

        And whether they had to be mended, because the file has none that could be kept.
        """
        last, timeline = self._last, self._timeline
        if pts is None:
            placed = timeline.first_place if last is None else last + timeline.usual_ticks
            mended = timeline.has_times
        else:
            placed = timeline.shown(pts)
            mended = last is not None and placed <= last
            if last is not None and mended:
                placed = last + 1
        self._last = placed
        return placed, mended


def in_order(
    timed: Iterable[tuple[int | None, Image]], depth: int
) -> Iterator[tuple[int | None, Image]]:
    """Images as they come, with their times sorted; a time comes at most `depth` images late."""
    if not depth:
        yield from timed
        return
    images: deque[Image] = deque()
    times: list[int] = []
    for pts, image in timed:
        if pts is None:
            yield pts, image
            continue
        images.append(image)
        heappush(times, pts)
        if len(images) > depth:
            yield heappop(times), images.popleft()
    for image in images:
        yield heappop(times), image


def supported_rate(
    pts: Sequence[int], time_base: Fraction, claimed: Fraction | None
) -> Fraction | None:
    """The frame rate that times support; the claimed one if it agrees with them.

    pts: of all frames in the order in which they are shown. Rates of 24, 30000/1001 and their like
    are recognised where a coarse clock rounds their times.
    """
    spacings = [b - a for a, b in itertools.pairwise(pts) if b > a]
    if not spacings:
        return claimed
    span = sum(spacings) * time_base
    mean, usual = len(spacings) / span, 1 / (statistics.median_low(spacings) * time_base)
    if claimed and any(abs(claimed / rate - 1) < _SAME_RATE for rate in (mean, usual)):
        return claimed
    whole = max(1, round(mean))
    ntsc = Fraction(max(1, round(mean * 1001 / 1000)) * 1000, 1001)
    for rate in sorted((Fraction(whole), ntsc), key=lambda rate: abs(rate - mean)):
        if abs(len(spacings) / rate - span) <= time_base:
            return rate
    return mean.limit_denominator(1001)


def result_time_base(pts: Sequence[int], time_base: Fraction, longest_last: int = 0) -> Fraction:
    """The file's time base, or a coarser one that keeps the order where an MP4 file needs it.

    pts: of all frames in the order in which they are shown; longest_last: how long the last lasts.
    """
    spacings = [b - a for a, b in itertools.pairwise(pts) if b > a]
    longest = max([longest_last, *spacings]) * time_base
    shortest = min(spacings, default=1) * time_base
    if time_base.denominator <= _FINEST_TIME_BASE and longest / time_base <= MOST_TICKS:
        return time_base
    fitting = [Fraction(1, n) for n in _COARSER_TIME_BASES if longest * n <= MOST_TICKS]
    ordered = [ticks for ticks in fitting if shortest >= ticks]
    return (ordered or fitting or [Fraction(1, _COARSER_TIME_BASES[-1])])[0]
