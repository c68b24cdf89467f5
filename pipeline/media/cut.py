"""The packets of a clip -> the segments it is processed in."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from fractions import Fraction

from pipeline.media.frame import WHOLE, Segment
from pipeline.media.scan import ClipScan
from pipeline.media.timeline import MOST_TICKS, Packet, Timeline

_LONGEST_LAST = 1.5
"""A clip that is not longer than so many segments is one; so is the rest of a clip."""


def cut_clip(
    scan: ClipScan, segment_seconds: float, num_frames: int | None = None
) -> tuple[Segment, ...]:
    """The segments of a clip, each of about segment_seconds and beginning at a key frame.

    num_frames: only so many will be taken; None for all. A short clip is one segment.
    """
    timeline, packets = scan.timeline, scan.packets
    count = len(packets) if num_frames is None else min(num_frames, len(packets))
    pts = sorted(packet.pts for packet in packets if packet.pts is not None)[:count]
    if not pts or float((pts[-1] - pts[0]) * timeline.video.time_base) <= (
        _LONGEST_LAST * segment_seconds
    ):
        return (WHOLE,)
    found = segments_of(
        packets,
        timeline.video.time_base,
        timeline.frame_rate,
        segment_seconds,
        # Irregular time stamps outside a slice move those in it too.
        seekable=_seeks_by_pts(timeline)
        and (timeline.stretch is None or timeline.stretch.is_seekable),
    )
    shown = [None if s.start_pts is None else timeline.shown(s.start_pts) for s in found]
    return tuple(
        Segment(segment.number, start, end, segment.seek_pts)
        for segment, start, end in zip(found, shown, [*shown[1:], None], strict=True)
    )


def is_seekable(scan: ClipScan) -> bool:
    """Whether a key frame of a clip is found by its pts."""
    return _seeks_by_pts(scan.timeline) and _is_regular(scan.packets)


def _seeks_by_pts(timeline: Timeline) -> bool:
    return not timeline.video.shifts and not timeline.reorder_depth


def cut_synthetic(
    num_frames: int, frame_rate: Fraction, segment_seconds: float
) -> tuple[Segment, ...]:
    """The segments of a clip whose pts are the numbers of its frames."""
    length = max(1, round(segment_seconds * frame_rate))
    if num_frames <= _LONGEST_LAST * length:
        return (WHOLE,)
    starts = range(length, num_frames - int((_LONGEST_LAST - 1) * length), length)
    return _between([(start, start) for start in starts])


def segments_of(
    packets: Sequence[Packet],
    time_base: Fraction,
    frame_rate: Fraction | None,
    segment_seconds: float,
    *,
    seekable: bool = True,
) -> tuple[Segment, ...]:
    """The segments of a clip with these packets, in the order in which they are stored.

    In ticks of time_base, as are the packets. seekable: whether a key frame is found by its pts.
    Where time stamps are missing, repeat or jump, those of the frames are made up while reading:
    then segments do not begin at key frames, and can only be found by decoding from the start.
    """
    length = max(1, round(segment_seconds / time_base))
    pts = [packet.pts for packet in packets if packet.pts is not None]
    if not pts:
        return (WHOLE,)
    if not seekable or not _is_regular(packets):
        duration = float(len(packets) / (frame_rate or 25) / time_base)
        cuts = itertools.takewhile(
            lambda cut: cut < pts[0] + duration - (_LONGEST_LAST - 1) * length,
            itertools.count(pts[0] + length, length),
        )
        return _between([(cut, None) for cut in cuts])
    end = max(pts) - (_LONGEST_LAST - 1) * length
    keys = key_pts(packets)
    starts: list[tuple[int, int | None]] = []
    last = min(pts)
    for before, key in itertools.pairwise([last, *keys]):
        if key >= last + length and key <= end:
            starts.append((key, before))
            last = key
    return _between(starts)


def key_pts(packets: Iterable[Packet]) -> list[int]:
    """When the key frames are shown, in order, in ticks."""
    return sorted(p.pts for p in packets if p.is_keyframe and p.pts is not None)


def seek_before(keys: Sequence[int], pts: int) -> int | None:
    """The key frame before the last one that is not behind a time; None for the beginning.

    Pictures behind a key frame of an open group refer to those before it. keys: see `key_pts`.
    """
    before = bisect_right(keys, pts)
    return keys[before - 2] if before > 1 else None


def _between(starts: Iterable[tuple[int, int | None]]) -> tuple[Segment, ...]:
    """The segments that begin at these (pts, pts to seek to), and the one before the first."""
    begins: list[tuple[int | None, int | None]] = [(None, None), *starts]
    ends = [*(start for start, _ in begins[1:]), None]
    return tuple(
        Segment(number, start, end, seek)
        for number, ((start, seek), end) in enumerate(zip(begins, ends, strict=True))
    )


def _is_regular(packets: Sequence[Packet]) -> bool:
    pts = [packet.pts for packet in packets]
    # Matroska has no dts for the first packets of a stream with B-frames.
    with_dts = itertools.dropwhile(lambda packet: packet.dts is None, packets)
    dts = [packet.dts for packet in with_dts]
    return (
        None not in pts
        and len(set(pts)) == len(pts)
        and all(
            a is not None and b is not None and a < b <= a + MOST_TICKS
            for a, b in itertools.pairwise(dts)
        )
    )
