"""A clip -> the facts of its time, by reading its packets once without decoding any."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet as AVPacket
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from pipeline.core.config import DEFAULT_LIMITS, LimitOptions
from pipeline.core.position import Beat, no_beat
from pipeline.media.container import exact, open_input
from pipeline.media.jumps import GAP_SECONDS, LEAP_SECONDS, Shift, Track, shifts_of
from pipeline.media.picture_track import picture_track
from pipeline.media.timeline import (
    Clock,
    Packet,
    Span,
    Timeline,
    has_other_clock,
    lasts_as_long,
    origin_of,
    result_time_base,
    supported_rate,
)

_NO_PTS_FORMAT = "avi"
_NUMBERED_FORMAT = "dirac"
_ASF_FORMATS = ("asf", "asf_o")
_BROADCAST_FORMATS = ("mpegts", "mpeg")
_MORE_FRAMES, _MORE_SECONDS = 64, 10
"""So much is read beyond the frames that are asked for: frames are stored out of order, and a
sound may be stored later than its picture."""
_SKIP_BYTES = 4
_DAY_SECONDS = 24 * 3600
_MOST_B_FRAMES = 16
"""In a row; so late may a frame be shown that was decoded before them."""
_USUAL_RATE = Fraction(25)


@dataclass(frozen=True, slots=True)
class ClipScan:
    """packets: those of the frames that are shown, in the order in which they are stored, with
    joins closed."""

    timeline: Timeline
    packets: list[Packet]


def scan_clip(
    path: Path,
    limits: LimitOptions = DEFAULT_LIMITS,
    num_frames: int | None = None,
    beat: Beat = no_beat,
) -> ClipScan:
    """Read the packets of a clip: of its best video stream, and of its sound and subtitles.

    num_frames: of which only so many frames will be taken; None for all. Raises InputError.
    """
    with open_input(path, limits) as container:
        video, _ = picture_track(path, container)
        read = _Read(container, video)
        try:
            for packet in container.demux([video, *read.others]):
                beat()
                if packet.size:
                    read.add(packet)
                    if num_frames is not None and read.is_enough(num_frames):
                        read.to_end = False
                        break
        except av.FFmpegError:
            pass  # What can be decoded ends here too, and is counted then.
        return _scan(video, read)


class _Read:
    """What was read of the packets of a clip."""

    def __init__(self, container: InputContainer, video: VideoStream) -> None:
        leap = GAP_SECONDS if container.format.name in _BROADCAST_FORMATS else LEAP_SECONDS
        self.video = video
        self._has_positions = container.format.name in _BROADCAST_FORMATS
        self.format_name = container.format.name
        self._num_indexed = len(video.index_entries)
        self.others: list[Stream] = [
            s for s in container.streams if s.index != video.index and _has_times(s)
        ]
        self.tracks = {
            s.index: Track(_time_base(s), leap, sparse=s.type == "subtitle")
            for s in (video, *self.others)
        }
        self.packets: list[Packet] = []
        self.to_end = True
        self._num_shown = self._num_read = 0
        self._enough_at: int | None = None

    def add(self, packet: AVPacket[Stream]) -> None:
        index, duration = packet.stream_index, packet.duration or 0
        track, is_video = self.tracks[index], packet.stream_index == self.video.index
        pts = kept_pts(packet, self.format_name) if is_video else packet.pts
        pts = packet.dts if pts is None else pts
        # The pts of a picture are out of order: no jump is seen in them.
        dts = packet.dts if is_video or packet.dts is not None else packet.pts
        # Transport streams give the last packet of a recording behind the first of the next one.
        order = packet.pos if packet.pos is not None else max(track.last_order, 0)
        track.add(order if self._has_positions else self._num_read, dts, duration)
        if pts is not None and track.may_begin(pts):
            if not is_video and packet.has_sidedata("skip_samples"):
                track.skip(pts, _skipped_seconds(packet))
            if not packet.is_discard:
                track.begin(pts)
        if is_video:
            self.packets.append(self._video_packet(packet, duration))
            self._num_shown += not packet.is_discard
        self._num_read += 1

    def _video_packet(self, packet: AVPacket[Stream], duration: int) -> Packet:
        """Numbers that are equal are one object: there may be a million packets."""
        pts, dts = kept_pts(packet, self.format_name), packet.dts
        before = self.packets[-1].duration if self.packets else 0
        return Packet(
            pts,
            pts if dts == pts else dts,
            packet.is_keyframe,
            before if duration == before else duration,
            packet.is_discard,
        )

    @property
    def is_complete(self) -> bool:
        """Whether the file's own index names no packet beyond those that were read."""
        return 0 < self._num_indexed <= len(self.packets)

    def is_enough(self, num_frames: int) -> bool:
        """Whether all is known that the first so many frames need."""
        if self._num_shown < num_frames + _MORE_FRAMES:
            return False
        if all(self.tracks[s.index].start is not None for s in self.others if s.type == "audio"):
            return True
        last = self.packets[-1].dts
        if self._enough_at is None or last is None:
            self._enough_at = last
            return last is None
        return (last - self._enough_at) * _time_base(self.video) > _MORE_SECONDS


def kept_pts(packet: AVPacket[Any], format_name: str) -> int | None:
    """A packet's pts as far as its file keeps one.

    An AVI file has numbered chunks only, some of them empty: its pts are guesses of FFmpeg. Those
    of a bare Dirac stream are the numbers of its pictures.
    """
    if format_name == _NUMBERED_FORMAT:
        return None
    return packet.dts if format_name == _NO_PTS_FORMAT else packet.pts


def _has_times(stream: Stream) -> bool:
    if stream.type == "video":
        return not stream.disposition & Disposition.attached_pic
    return stream.type in ("audio", "subtitle")


def _skipped_seconds(packet: AVPacket[Stream]) -> Fraction:
    """How much of the sound from a packet on is there for the decoder only."""
    samples = int.from_bytes(bytes(packet.get_sidedata("skip_samples"))[:_SKIP_BYTES], "little")
    rate = getattr(packet.stream.codec_context, "sample_rate", 0)
    return Fraction(samples, rate) if rate else Fraction(0)


def _scan(video: VideoStream, read: _Read) -> ClipScan:
    time_base = _time_base(video)
    shifts = shifts_of(read.tracks)
    stored = _shifted(read.packets, shifts[video.index])
    hidden_before = _hidden_before(read, stored)
    packets = [
        p
        for p in stored
        if not p.is_discard and (hidden_before is None or p.pts is None or p.pts >= hidden_before)
    ]
    pts = sorted(packet.pts for packet in packets if packet.pts is not None)
    claimed = exact(video.average_rate)
    # Times of some frames only say nothing about how many there are in a second.
    rate = supported_rate(pts, time_base, claimed) if len(pts) == len(packets) else claimed
    if not pts:
        rate = rate or exact(video.guessed_rate)
        base = 1 / (rate or _USUAL_RATE)
        timeline = Timeline(
            Clock(time_base), base, rate, len(packets), len(stored) - len(packets), has_times=False
        )
        return ClipScan(dataclasses.replace(timeline, others=_in_step(read, shifts)), packets)
    end = _end(read, packets, pts, rate)
    span = Span(pts[0] * time_base, end * time_base)
    sounds = _sounds(read, shifts, span)
    origin = round(sounds.origin / time_base)
    timeline = Timeline(
        video=Clock(time_base, origin, shifts[video.index]),
        time_base=result_time_base(pts, time_base, end - pts[-1]),
        frame_rate=rate,
        num_frames=len(packets),
        num_hidden=len(stored) - len(packets),
        num_key_frames=sum(packet.is_keyframe for packet in packets),
        is_complete=read.is_complete,
        others=sounds.clocks,
        hidden_before=hidden_before,
        reorder_depth=_reorder_depth(read, stored),
        part_starts=tuple(stored[s.ordinal].pts or 0 for s in shifts[video.index]),
        left_out=sounds.left_out,
        notes=tuple(sounds.notes),
    )
    timeline = dataclasses.replace(timeline, start=timeline.shown(pts[0]))
    if read.to_end:
        end = max(timeline.shown(end), timeline.shown(pts[-1]) + 1)
        timeline = dataclasses.replace(timeline, last_pts=pts[-1], end=end)
    return ClipScan(timeline, packets)


def _shifted(packets: list[Packet], shifts: tuple[Shift, ...]) -> list[Packet]:
    """The packets of a stream, with joins closed."""
    if not shifts:
        return packets
    clock = Clock(Fraction(1), 0, shifts)

    def moved(time: int | None, ticks: int) -> int | None:
        return None if time is None else time + ticks

    return [
        dataclasses.replace(p, pts=moved(p.pts, ticks), dts=moved(p.dts, ticks))
        for ticks, p in ((clock.shift(n), p) for n, p in enumerate(packets))
    ]


def _hidden_before(read: _Read, packets: Sequence[Packet]) -> int | None:
    """Where an edit list begins: an MP4 file shows nothing before 0, whatever it has to decode."""
    shown = [p.pts for p in packets if p.pts is not None and not p.is_discard]
    has_edits = read.format_name.startswith("mov") and any(pts >= 0 for pts in shown)
    return 0 if has_edits and min(shown) < 0 else None


def _reorder_depth(read: _Read, packets: Sequence[Packet]) -> int:
    """How far times may be out of order once frames are in order: they are those of decoding."""
    pts = [packet.pts for packet in packets]
    only_grow = all(a is not None and b is not None and a <= b for a, b in itertools.pairwise(pts))
    reorders = read.video.codec_context.has_b_frames
    return _MOST_B_FRAMES if reorders and (only_grow or read.format_name == _NO_PTS_FORMAT) else 0


def _end(read: _Read, packets: Sequence[Packet], pts: Sequence[int], rate: Fraction | None) -> int:
    """Where the last frame ends, in ticks of the file."""
    video, last = read.video, pts[-1]
    duration = next((p.duration for p in packets if p.pts == last), 0)
    if read.format_name in _ASF_FORMATS:
        duration = 0  # The file has none: what FFmpeg says is a guess.
    most = LEAP_SECONDS / _time_base(video)
    if not 0 < duration < most:
        usual = 1 / (rate or _USUAL_RATE) / _time_base(video)
        duration = last - pts[-2] if len(pts) > 1 else max(1, round(usual))
    edited = (video.start_time or 0) + (video.duration or 0)
    if read.format_name.startswith("mov") and read.is_complete and 0 < edited - last <= most:
        return edited  # An edit list ends where it says.
    return last + duration


@dataclass(slots=True)
class _Sounds:
    """How what goes along with the picture is brought in step with it."""

    origin: Fraction
    clocks: dict[int, Clock] = field(default_factory=dict)
    left_out: dict[int, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def _sounds(read: _Read, shifts: dict[int, tuple[Shift, ...]], video: Span) -> _Sounds:
    spans: dict[int, Span] = {}
    for stream in read.others:
        track = read.tracks[stream.index]
        if stream.type == "audio" and track.start is not None:
            moved = shifts[stream.index][-1].ticks if shifts[stream.index] else 0
            end = track.end_seconds + moved * track.time_base
            spans[stream.index] = Span(track.start * track.time_base, end)
    least_gap = 0 if read.to_end else _DAY_SECONDS
    strange = {i for i, span in spans.items() if has_other_clock(video, span, least_gap)}
    # To a tick of the picture, or its sound would be out of step by the rounding.
    tick = _time_base(read.video)
    origin = origin_of(video, [spans[i] for i in spans.keys() - strange])
    found = _Sounds(round(origin / tick) * tick)
    for stream in read.others:
        index, time_base = stream.index, _time_base(stream)
        origin = found.origin
        if index in strange:
            if read.to_end and not lasts_as_long(video, spans[index]):
                found.left_out[index] = "its times are unrelated to those of the picture"
                continue
            origin += spans[index].start - video.start
            found.notes.append(
                f"stream {index} ({stream.type}) has times that are unrelated to those of the "
                "picture: it now begins with the picture"
            )
        elif index in spans and origin - spans[index].start > tick:
            found.notes.append(
                f"stream {index} ({stream.type}) begins {float(origin - spans[index].start):.2f} s "
                "before the picture: that part was left out"
            )
        found.clocks[index] = Clock(time_base, round(origin / time_base), shifts[index])
    return found


def _in_step(read: _Read, shifts: dict[int, tuple[Shift, ...]]) -> dict[int, Clock]:
    """The clocks of what goes along with a picture without times: each from 0 on."""
    return {
        stream.index: Clock(
            _time_base(stream), read.tracks[stream.index].start or 0, shifts[stream.index]
        )
        for stream in read.others
    }


def _time_base(stream: Stream) -> Fraction:
    time_base = exact(stream.time_base)
    assert time_base is not None
    return time_base
