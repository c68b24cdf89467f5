"""Where recordings were joined: jumps in the times of a stream, and what closes them.

Pure: values over the times of packets. All streams of the second recording are shifted by the same
time: by so much that none of them begins before it has ended in the first.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

_FALL_BACK_SECONDS = Fraction(1, 10)
"""Time stamps that fall back by more, and stay there, begin a new recording."""
_OWN_FALL_BACK_SECONDS = 10
"""So far one stream alone has to fall back to be on another clock from there on."""
GAP_SECONDS, LEAP_SECONDS = 10, 30 * 3600
"""Time stamps that leap ahead by more begin a new recording: in broadcast streams, elsewhere."""


@dataclass(frozen=True, slots=True)
class Shift:
    """What is added to the time stamps of a stream from one packet on: its number, and ticks."""

    ordinal: int
    ticks: int


@dataclass(frozen=True, slots=True)
class Jump:
    """Where the time stamps of a stream restart.

    ordinal: of the first packet behind it, among those of its stream. order: where that one is in
    the file, compared with those of other streams; order_before: the packet before it. end: where
    that one ends; start: when the first behind it is decoded; both in seconds, as in the file.
    """

    ordinal: int
    order: int
    order_before: int
    end: Fraction
    start: Fraction


class Track:
    """The times of one stream, packet by packet: where it begins, ends and jumps.

    leap_seconds: time stamps that leap ahead by more begin a new recording.
    sparse: whether it says nothing where it has no packet, as subtitles do: then jumps are not
        looked for. leaps: single packets that are too late, and what brings each back.
    """

    def __init__(self, time_base: Fraction, leap_seconds: int, *, sparse: bool = False) -> None:
        self.time_base = time_base
        self.start: int | None = None
        self._heard_from: int | None = None
        self.orders: list[int] = []
        self.first_order = self.last_order = -1
        self._leap = leap_seconds / time_base
        self._fall_back = _FALL_BACK_SECONDS / time_base
        self._sparse = sparse
        self.leaps: list[Shift] = []
        self._jumps: list[Jump] = []
        self._pending: Jump | None = None
        self._num_packets = 0
        self._before: int | None = None
        self._before_end = 0
        self._last: int | None = None
        self._end = 0

    def add(self, order: int, dts: int | None, duration: int) -> None:
        """Take the next packet: where it is in the file, and its times in ticks."""
        if self._num_packets == 0:
            self.first_order = order
        if self._sparse:
            self.orders.append(order)
        elif dts is not None:
            self._look_for_jump(order, dts)
        if dts is not None:
            step = duration or (dts - self._last if self._last is not None else 0)
            self._last, self._end = dts, dts + max(step, 0)
        self._num_packets += 1
        self.last_order = order

    def may_begin(self, pts: int) -> bool:
        """Whether a packet may be the first that is shown or heard."""
        return (self.start is None or pts < self.start) and not self.jumps()

    def skip(self, pts: int, seconds: Fraction) -> None:
        """Take note that from a packet on so much is there for the decoder only."""
        self._heard_from = pts + ceil(seconds / self.time_base)

    def begin(self, pts: int) -> None:
        """Take note of a packet that is shown or heard."""
        start = pts if self._heard_from is None else max(pts, self._heard_from)
        self.start = start if self.start is None else min(self.start, start)

    @property
    def end_seconds(self) -> Fraction:
        """Where its last packet ends, as in the file."""
        return self._end * self.time_base

    def jumps(self) -> list[Jump]:
        """All of them, once every packet was taken."""
        return [*self._jumps, *([self._pending] if self._pending else [])]

    def _look_for_jump(self, order: int, dts: int) -> None:
        last, last_end = self._last, self._end
        if self._pending is not None:
            jump, self._pending = self._pending, None
            seconds = dts * self.time_base
            if abs(seconds - jump.start) <= abs(seconds - jump.end):
                self._jumps.append(jump)
            else:  # The next packet is back: one that is out of place is no new recording.
                self._note_leap(jump.ordinal, jump.end - jump.start)
                last = last_end = round(jump.end / self.time_base)
        elif self._was_leap(dts):
            assert last is not None
            self._note_leap(self._num_packets - 1, (self._before_end - last) * self.time_base)
            last, last_end = self._before, self._before_end
        if last is not None and (last - dts > self._fall_back or dts - last > self._leap):
            self._pending = Jump(
                self._num_packets,
                order,
                self.last_order,
                last_end * self.time_base,
                dts * self.time_base,
            )
        self._before, self._before_end = last, last_end

    def _was_leap(self, dts: int) -> bool:
        """Whether only the packet before this one was too late."""
        if self._last is None or self._before is None:
            return False
        return self._before < dts < self._last - self._fall_back

    def _note_leap(self, ordinal: int, seconds: Fraction) -> None:
        if seconds < 0:
            self.leaps.append(Shift(ordinal, round(seconds / self.time_base)))


def shifts_of(tracks: Mapping[int, Track]) -> dict[int, tuple[Shift, ...]]:
    """Of each track, what closes its jumps; the same time for all where recordings were joined."""
    waiting = {index: deque(track.jumps()) for index, track in tracks.items()}
    shifts: dict[int, list[Shift]] = {index: [] for index in tracks}
    totals = dict.fromkeys(tracks, Fraction(0))
    while any(waiting.values()):
        at = min(jumps[0].order for jumps in waiting.values() if jumps)
        jumping = {
            index: jumps.popleft()
            for index, jumps in waiting.items()
            if jumps and jumps[0].order_before < at
        }
        total = max(jump.end + totals[i] - jump.start for i, jump in jumping.items())
        others = [
            index
            for index, track in tracks.items()
            if index not in jumping and not track.orders and track.first_order < at
            if at < track.last_order
        ]
        moved = tracks.keys() if not others else jumping.keys()
        if others:
            change = total - totals[next(iter(jumping))]
            if -LEAP_SECONDS <= change <= _OWN_FALL_BACK_SECONDS:
                continue  # The others go on: what is out of place comes back in step.
        for index in moved:
            track = tracks[index]
            if index in jumping:
                ordinal = jumping[index].ordinal
            elif track.orders:
                ordinal = bisect_left(track.orders, at)
            elif track.first_order >= at:
                ordinal = 0
            else:
                continue  # It has ended before.
            totals[index] = total
            shifts[index].append(Shift(ordinal, round(total / track.time_base)))
    return {index: _with_leaps(found, tracks[index].leaps) for index, found in shifts.items()}


def _with_leaps(shifts: Sequence[Shift], leaps: Iterable[Shift]) -> tuple[Shift, ...]:
    """The shifts of a stream, and those of single packets that are too late, in order."""
    found = {shift.ordinal: shift.ticks for shift in shifts}
    for leap in leaps:
        before = (s for s in shifts if s.ordinal <= leap.ordinal)
        usual = max(before, default=Shift(0, 0), key=ordinal_of)
        found[leap.ordinal] = usual.ticks + leap.ticks
        found.setdefault(leap.ordinal + 1, usual.ticks)
    return tuple(Shift(ordinal, found[ordinal]) for ordinal in sorted(found))


def ordinal_of(shift: Shift) -> int:
    return shift.ordinal
