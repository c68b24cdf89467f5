"""A clip -> the segments it is processed in, found by reading its packets only."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from pipeline.config import DEFAULT_LIMITS, LimitOptions
from pipeline.container import open_input
from pipeline.decode import MOST_TICKS
from pipeline.frames import WHOLE, Segment, VideoInfo
from pipeline.picture_track import picture_track
from pipeline.position import Beat, no_beat

_LONGEST_LAST = 1.5
"""A clip that is not longer than so many segments is one; so is the rest of a clip."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of a video packet without decoding it; pts and dts in ticks."""

    pts: int | None
    dts: int | None
    is_keyframe: bool


def plan_clip(
    path: Path,
    info: VideoInfo,
    segment_seconds: float,
    num_frames: int | None,
    limits: LimitOptions = DEFAULT_LIMITS,
    beat: Beat = no_beat,
) -> tuple[Segment, ...]:
    """The segments of a clip, each of about segment_seconds and beginning at a key frame.

    num_frames: only so many will be taken; None for all. A short clip is one segment, for which
    nothing is read.
    """
    known = [info.duration_seconds] if info.duration_seconds else []
    if num_frames is not None and info.frame_rate:
        known.append(float(num_frames / info.frame_rate))
    if known and min(known) <= _LONGEST_LAST * segment_seconds:
        return (WHOLE,)
    packets = _read_packets(path, limits, beat)
    return segments_of(packets, info.time_base, info.frame_rate, segment_seconds)


def plan_synthetic(
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
) -> tuple[Segment, ...]:
    """The segments of a clip with these packets, in the order in which they are stored.

    Where time stamps are missing, repeat or jump, those of the frames are made up while reading:
    then segments do not begin at key frames, and can only be found by decoding from the start.
    """
    length = max(1, round(segment_seconds / time_base))
    pts = [packet.pts for packet in packets if packet.pts is not None]
    if not pts:
        return (WHOLE,)
    if not _is_regular(packets):
        duration = float(len(packets) / (frame_rate or 25) / time_base)
        cuts = itertools.takewhile(
            lambda cut: cut < pts[0] + duration - (_LONGEST_LAST - 1) * length,
            itertools.count(pts[0] + length, length),
        )
        return _between([(cut, None) for cut in cuts])
    end = max(pts) - (_LONGEST_LAST - 1) * length
    keys = sorted(p.pts for p in packets if p.is_keyframe and p.pts is not None)
    starts: list[tuple[int, int | None]] = []
    last = min(pts)
    for before, key in itertools.pairwise([last, *keys]):
        if key >= last + length and key <= end:
            starts.append((key, before))
            last = key
    return _between(starts)


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
    dts = [packet.dts for packet in packets if packet.dts is not None]
    return (
        None not in pts
        and len(dts) == len(packets)
        and len(set(pts)) == len(pts)
        and all(a < b <= a + MOST_TICKS for a, b in itertools.pairwise(dts))
    )


def _read_packets(path: Path, limits: LimitOptions, beat: Beat) -> list[Packet]:
    packets = []
    with open_input(path, limits) as container:
        stream, _ = picture_track(path, container)
        try:
            for packet in container.demux(stream):
                beat()
                if packet.size and not packet.is_discard:
                    packets.append(Packet(packet.pts, packet.dts, packet.is_keyframe))
        except av.FFmpegError:
            return packets  # What can be decoded ends here too, and is told of then.
    return packets
