"""Joins the encoded video with the source's other streams into the finished file."""

from __future__ import annotations

import contextlib
import heapq
import itertools
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from pipeline.core.config import DEFAULT_LIMITS, LimitOptions
from pipeline.core.errors import EncodeError, reason_of
from pipeline.core.position import Beat, no_beat
from pipeline.core.text import counted
from pipeline.media.carried import CARRY_ALL, Carried
from pipeline.media.container import exact, open_header, open_written
from pipeline.media.metadata import carry_metadata
from pipeline.media.picture_track import picture_track
from pipeline.media.streams import (
    Converter,
    TimedPacket,
    add_streams,
    converted,
    damage,
    map_streams,
)
from pipeline.media.timeline import Clock, PacketClock, Timeline

_MOST_APART_SECONDS = 60
"""So far apart streams may be stored that belong to the same time."""

_REFUSALS = (av.InvalidDataError, av.ArgumentError, av.PatchWelcomeError)
"""What the muxer raises for packets that it does not take."""


@dataclass(frozen=True, slots=True)
class SourceStreams:
    """The file whose other streams go beside the video.

    timeline: how its times become those of the result; None leaves them.
    end_seconds: where its streams are cut off, if the video was; None takes all. carried: which
    of its streams go along. begin_seconds: where its streams begin; None takes what precedes the
    picture too. seek_seconds: where in the file their packets are looked for; None reads it from
    its beginning.
    """

    path: Path
    limits: LimitOptions = DEFAULT_LIMITS
    timeline: Timeline | None = None
    end_seconds: float | None = None
    carried: Carried = CARRY_ALL
    begin_seconds: float | None = None
    seek_seconds: float | None = None


def mux(
    videos: Sequence[Path],
    target: Path,
    source: SourceStreams | None = None,
    beat: Beat = no_beat,
    more: Sequence[SourceStreams] = (),
) -> list[str]:
    """Copy the video track, and what MP4 can carry of the source's others, into an MP4 file.

    videos: the track in pieces that follow each other, all from the same encoder. more: other
    parts of the source that follow the first one; there are no chapters then.
    Packets are copied as they are, or encoded, as mapped in streams.py. The index goes to the
    front, so that a player can start before it has the whole file. Where MP4 turns out not to take
    what was mapped, the video is written alone. Returns a note for every stream that is damaged
    or left out. Raises EncodeError if the file cannot be written.
    """
    try:
        return _mux(videos, target, source, beat, more)
    except EncodeError as error:
        if source is None or not isinstance(error.__cause__, _REFUSALS):
            raise
        notes = _mux(videos, target, None, beat)
        reason = getattr(error.__cause__, "strerror", None) or reason_of(error.__cause__)
        return [*notes, f"sound and all other streams were left out: MP4 refused them ({reason})"]


def _mux(
    videos: Sequence[Path],
    target: Path,
    source: SourceStreams | None,
    beat: Beat,
    more: Sequence[SourceStreams] = (),
) -> list[str]:
    notes: list[str] = []
    with contextlib.ExitStack() as inputs:
        try:
            first = inputs.enter_context(open_written(videos[0]))
            other = None
            if source is not None:
                other = inputs.enter_context(open_header(source.path, source.limits))
            time_base = first.streams.video[0].time_base
            assert time_base is not None
            options = {"movflags": "faststart", "movie_timescale": str(time_base.denominator)}
            with av.open(f"file:{target}", "w", format="mp4", options=options) as out:
                video = _add_video(out, first)
                sources = [_video_packets(first, videos[1:], video)]
                converters: dict[int, Converter] = {}
                if other is not None and source is not None:
                    parts = [source, *more]
                    packets, converters = _add_others(out, video, other, parts, notes)
                    sources.append(converted(packets, converters))
                merged = heapq.merge(*sources, key=lambda item: item[0])
                notes += _mux_packets(out, merged, beat, video)
                if other is not None:
                    notes += damage(other, converters)
        except (av.FFmpegError, ValueError) as error:
            raise EncodeError(f"{target.name} could not be written ({error})") from error
    return notes


def _add_others(
    out: OutputContainer,
    video: VideoStream,
    other: InputContainer,
    parts: Sequence[SourceStreams],
    notes: list[str],
) -> tuple[Iterator[TimedPacket], dict[int, Converter]]:
    """Add the source's other streams, with its tags and chapters; their packets are to come."""
    source = parts[0]
    timeline, end_seconds = source.timeline, parts[-1].end_seconds
    annotated, _ = picture_track(source.path, other)
    if source.carried.others:
        carry_metadata(other, annotated, out, video, end_seconds, timeline)
        if len(parts) > 1:
            out.set_chapters([])
    left_out = timeline.left_out if timeline else {}
    mappings = map_streams(source.path, other, annotated, left_out, source.carried)
    targets, converters = add_streams(out, other, mappings, end_seconds, source.carried)
    return _part_packets(other, targets, converters.keys(), parts, notes), converters


def _part_packets(
    other: InputContainer,
    targets: dict[int, Stream],
    decoded: Collection[int],
    parts: Sequence[SourceStreams],
    notes: list[str],
) -> Iterator[TimedPacket]:
    for part in parts:
        if part.seek_seconds is not None:
            other.seek(int(part.seek_seconds * av.time_base))
        clocks = _clocks(other, targets, decoded, part.timeline)
        for timed in _packets(other, targets, clocks, notes, part.end_seconds):
            if part.begin_seconds is None or timed[0] >= part.begin_seconds:
                yield timed


def verify(
    path: Path,
    num_frames: int,
    end_seconds: float,
    times: Mapping[int, Fraction] | None = None,
    beat: Beat = no_beat,
) -> None:
    """Reopen a finished file: it must show every frame, and last as long as the source.

    end_seconds: where the last frame ends. times: when some frames were encoded to be shown, in
    seconds, by their number. Raises EncodeError for what is not right.
    """
    try:
        with open_written(path) as container:
            stream = container.streams.video[0]
            time_base = exact(stream.time_base)
            assert time_base is not None
            end = ((stream.start_time or 0) + (stream.duration or 0)) * time_base
            shown = array("q")
            for packet in container.demux(stream):
                beat()
                if packet.size and packet.pts is not None and packet.pts >= 0:
                    # Frames that an edit list hides are in the file, but not shown.
                    shown.extend([] if packet.is_discard else [packet.pts])
    except (av.FFmpegError, IndexError) as error:
        raise EncodeError(f"{path.name} cannot be read back ({error})") from error
    if len(shown) != num_frames:
        raise EncodeError(
            f"{path.name} holds {counted(len(shown), 'frame')} where {num_frames} were encoded"
        )
    tolerance = 0.1
    if abs(float(end) - end_seconds) > tolerance:
        raise EncodeError(
            f"{path.name} ends at {float(end):.2f} s, its source at {end_seconds:.2f} s"
        )
    in_order = np.sort(np.frombuffer(shown, np.int64))  # A list takes five times the memory.
    for index, seconds in (times or {}).items():
        found = int(in_order[index]) * time_base
        if abs(found - seconds) > time_base:
            raise EncodeError(
                f"{path.name} shows frame {index} at {float(found):.6f} s, where it was encoded "
                f"for {float(seconds):.6f} s"
            )


def _add_video(out: OutputContainer, first: InputContainer) -> VideoStream:
    """Add a stream for the video track. Raises ValueError if MP4 does not take it."""
    stream = first.streams.video[0]
    copy = out.add_stream_from_template(stream, opaque=True)
    assert isinstance(copy, VideoStream)
    # A template gives none of them. Without a decoder PyAV 17 crashes where the format is read.
    # MP4 has it, and the depth, from the headers of the codec.
    copy.codec_context.pix_fmt = "yuv420p"
    copy.codec_context.codec_tag = stream.codec_context.codec_tag
    copy.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio or Fraction(0)
    copy.metadata.update(stream.metadata)
    copy.disposition = stream.disposition
    return copy


def _clocks(
    source: InputContainer,
    targets: Mapping[int, Stream],
    decoded: Collection[int],
    timeline: Timeline | None,
) -> dict[int, PacketClock]:
    """The clock of each stream to be carried; a cover is of no time.

    decoded: the streams whose packets are decoded on their way.
    """
    clocks = {}
    for index in targets:
        stream = source.streams[index]
        time_base = exact(stream.time_base) or Fraction(1)
        clock = Clock(time_base)
        if timeline is not None and not stream.disposition & Disposition.attached_pic:
            origin = round(timeline.offset_seconds / time_base)
            clock = timeline.others.get(index, Clock(time_base, origin))
        clocks[index] = PacketClock(
            clock, must_grow=index not in decoded, from_zero=stream.type == "subtitle"
        )
    return clocks


def _mux_packets(
    out: OutputContainer,
    packets: Iterable[tuple[float, av.Packet[Stream], Stream]],
    beat: Beat,
    video: Stream,
) -> list[str]:
    """Write all packets; returns a note for each other stream of which some were refused."""
    refused: Counter[str] = Counter()
    for _, packet, stream in packets:
        beat()
        origin, packet.stream = packet.stream, stream
        try:
            out.mux(packet)
        except _REFUSALS:
            # Damaged sound must not cost the picture; of which `verify` counts the frames.
            if stream is video:
                raise
            refused[f"stream {origin.index} ({origin.type})"] += 1
    return [
        f"{name}: {counted(count, 'damaged packet')} left out" for name, count in refused.items()
    ]


def _video_packets(
    first: InputContainer, others: Sequence[Path], target: Stream
) -> Iterator[tuple[float, av.Packet[Stream], Stream]]:
    """The packets of all pieces, each with its decoding time in seconds and its output stream.

    Raises EncodeError for a piece that the decoder of the first one would not understand.
    """
    extradata = first.streams.video[0].codec_context.extradata
    yield from _piece_packets(first, target)
    for path in others:
        with open_written(path) as piece:
            if piece.streams.video[0].codec_context.extradata != extradata:
                raise EncodeError(f"{path.name} was encoded in another way than what precedes it")
            yield from _piece_packets(piece, target)


def _piece_packets(
    piece: InputContainer, target: Stream
) -> Iterator[tuple[float, av.Packet[Stream], Stream]]:
    stream: Stream = piece.streams.video[0]
    end = (stream.start_time or 0) + (stream.duration or 0)
    tick_seconds = float(stream.time_base or 0)
    packets = (p for p in piece.demux(stream) if p.size and p.dts is not None)
    for packet, following in itertools.pairwise(itertools.chain(packets, [None])):
        if packet is None or packet.dts is None:
            return
        if following is None:
            # What libavformat makes up while reading VP9 must not reach the last frame.
            packet.duration = end - (packet.pts or 0)
        yield packet.dts * tick_seconds, packet, target


def _packets(
    container: InputContainer,
    copies: dict[int, Stream],
    clocks: Mapping[int, PacketClock],
    notes: list[str],
    end_seconds: float | None,
) -> Iterator[tuple[float, av.Packet[Stream], Stream]]:
    """The packets to copy, each with its decoding time in seconds and its output stream.

    end_seconds: where each stream ends, however far apart they are stored; None takes all.
    """
    if not copies:
        return
    seconds = 0.0
    streams = [container.streams[index] for index in copies]
    tick_seconds = {stream.index: float(stream.time_base or 0) for stream in streams}
    going_on = {stream.index for stream in streams if stream.type == "audio"}
    # A further video of which a slice takes a part begins with a key frame.
    not_begun = {stream.index for stream in streams if stream.type == "video"}
    try:
        for packet in container.demux(streams):
            if not packet.size:
                continue
            index = packet.stream_index
            placed = clocks[index].place(packet.pts, packet.dts, packet.duration or 0)
            if placed is None or (index in not_begun and not packet.is_keyframe):
                continue
            not_begun.discard(index)
            packet.pts, packet.dts, packet.duration = placed
            time = packet.dts if packet.dts is not None else packet.pts
            seconds = seconds if time is None else time * tick_seconds[index]
            if end_seconds is None or seconds < end_seconds:
                if end_seconds is not None and packet.stream.type == "subtitle":
                    ticks_left = round((end_seconds - seconds) / tick_seconds[index])
                    packet.duration = max(1, min(packet.duration or 0, ticks_left))
                yield seconds, packet, copies[index]
                continue
            going_on.discard(index)
            if not going_on or seconds > end_seconds + _MOST_APART_SECONDS:
                return
    except av.FFmpegError as error:
        # A damaged end: what came before it is kept, as with the video.
        notes.append(f"copying the other streams stopped at {seconds:.2f} s ({error})")
