"""Joins the encoded video with the source's other streams into the finished file."""

from __future__ import annotations

import contextlib
import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from pipeline.config import DEFAULT_LIMITS, LimitOptions
from pipeline.container import open_input
from pipeline.decode import MOST_TICKS
from pipeline.errors import EncodeError
from pipeline.metadata import carry_metadata
from pipeline.picture_track import picture_track
from pipeline.position import Beat, no_beat
from pipeline.streams import Converter, add_streams, converted, damage, plan_streams


def mux(
    videos: Sequence[Path],
    source: Path | None,
    target: Path,
    end_seconds: float | None = None,
    limits: LimitOptions = DEFAULT_LIMITS,
    beat: Beat = no_beat,
) -> list[str]:
    """Copy the video track, and what MP4 can carry of the source's others, into an MP4 file.

    videos: the track in pieces that follow each other, all from the same encoder.
    end_seconds: where the other streams are cut off too, if the video was; None takes all.
    Packets are copied as they are, or encoded, as planned in streams.py. The index goes to the
    front, so that a player can start before it has the whole file. Returns a note for every
    stream that is damaged.
    Raises EncodeError if the file cannot be written.
    """
    notes: list[str] = []
    with contextlib.ExitStack() as inputs:
        try:
            first = inputs.enter_context(av.open(f"file:{videos[0]}"))
            other = inputs.enter_context(open_input(source, limits)) if source is not None else None
            time_base = first.streams.video[0].time_base
            assert time_base is not None
            options = {"movflags": "faststart", "movie_timescale": str(time_base.denominator)}
            with av.open(f"file:{target}", "w", format="mp4", options=options) as out:
                video = _add_video(out, first)
                sources = [_video_packets(first, videos[1:], video)]
                converters: dict[int, Converter] = {}
                if other is not None and source is not None:
                    annotated, _ = picture_track(source, other)
                    carry_metadata(other, annotated, out, video, end_seconds)
                    targets, converters = add_streams(
                        out, other, plan_streams(source, other), end_seconds
                    )
                    packets = _packets(other, targets, notes, end_seconds)
                    sources.append(converted(packets, converters))
                merged = heapq.merge(*sources, key=lambda item: item[0])
                notes += _mux_packets(out, merged, beat, video)
                if other is not None:
                    notes += damage(other, converters)
        except (av.FFmpegError, ValueError) as error:
            raise EncodeError(f"{target.name} could not be written ({error})") from error
    return notes


def verify(path: Path, num_frames: int, end_seconds: float, beat: Beat = no_beat) -> None:
    """Reopen a finished file: it must hold every frame and last as long as the source.

    end_seconds: where the last frame ends. Raises EncodeError for what is not right.
    """
    try:
        with av.open(f"file:{path}") as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            found = 0
            end = ((stream.start_time or 0) + (stream.duration or 0)) * stream.time_base
            for packet in container.demux(stream):
                beat()
                if packet.size and packet.pts is not None:
                    found += 1
    except (av.FFmpegError, IndexError) as error:
        raise EncodeError(f"{path.name} cannot be read back ({error})") from error
    if found != num_frames:
        raise EncodeError(f"{path.name} holds {found} frames where {num_frames} were encoded")
    tolerance = 0.1
    if abs(float(end) - end_seconds) > tolerance:
        raise EncodeError(
            f"{path.name} ends at {float(end):.2f} s, its source at {end_seconds:.2f} s"
        )


def _add_video(out: OutputContainer, first: InputContainer) -> VideoStream:
    """Add a stream for the video track. Raises ValueError if MP4 does not take it."""
    stream = first.streams.video[0]
    copy = out.add_stream_from_template(stream, opaque=True)
    assert isinstance(copy, VideoStream)
    # A template gives neither.
    copy.codec_context.codec_tag = stream.codec_context.codec_tag
    copy.codec_context.sample_aspect_ratio = stream.sample_aspect_ratio or Fraction(0)
    copy.metadata.update(stream.metadata)
    copy.disposition = stream.disposition
    return copy


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
        except (av.InvalidDataError, av.ArgumentError, av.PatchWelcomeError):
            # Damaged sound must not cost the picture; of which `verify` counts the frames.
            if stream is video:
                raise
            refused[f"stream {origin.index} ({origin.type})"] += 1
    return [f"{name}: {count} damaged packets were left out" for name, count in refused.items()]


def _video_packets(
    first: InputContainer, others: Sequence[Path], target: Stream
) -> Iterator[tuple[float, av.Packet[Stream], Stream]]:
    """The packets of all pieces, each with its decoding time in seconds and its output stream.

    Raises EncodeError for a piece that the decoder of the first one would not understand.
    """
    extradata = first.streams.video[0].codec_context.extradata
    yield from _piece_packets(first, target)
    for path in others:
        with av.open(f"file:{path}") as piece:
            if piece.streams.video[0].codec_context.extradata != extradata:
                raise EncodeError(f"{path.name} was encoded in another way than what precedes it")
            yield from _piece_packets(piece, target)


def _piece_packets(
    piece: InputContainer, target: Stream
) -> Iterator[tuple[float, av.Packet[Stream], Stream]]:
    stream: Stream = piece.streams.video[0]
    end = (stream.start_time or 0) + (stream.duration or 0)
    tick_seconds = float(stream.time_base or 0)
    for packet in piece.demux(stream):
        if packet.size and packet.dts is not None:
            # What libavformat makes up while reading VP9 must not reach the last frame.
            packet.duration = end - (packet.pts or 0)
            yield packet.dts * tick_seconds, packet, target


def _packets(
    container: InputContainer,
    copies: dict[int, Stream],
    notes: list[str],
    end_seconds: float | None,
) -> Iterator[tuple[float, av.Packet[Stream], Stream]]:
    """The packets to copy, each with its decoding time in seconds and its output stream."""
    if not copies:
        return
    seconds = 0.0
    last_dts: dict[int, int] = {}
    offsets = dict.fromkeys(copies, 0)
    tick_seconds = {index: float(container.streams[index].time_base or 0) for index in copies}
    try:
        for packet in container.demux([container.streams[index] for index in copies]):
            if packet.size:
                index = packet.stream.index
                if packet.dts is not None:
                    # Joined recordings begin anew; MP4 takes only times that grow, and not by much.
                    last = last_dts.get(index)
                    if (
                        last is not None
                        and not last < packet.dts + offsets[index] <= last + MOST_TICKS
                    ):
                        offsets[index] = last + max(1, packet.duration or 0) - packet.dts
                    packet.dts += offsets[index]
                    if packet.pts is not None:
                        packet.pts += offsets[index]
                    last_dts[index] = packet.dts
                    seconds = packet.dts * tick_seconds[index]
                if end_seconds is not None and seconds >= end_seconds:
                    return
                yield seconds, packet, copies[packet.stream.index]
    except av.FFmpegError as error:
        # A damaged end: what came before it is kept, as with the video.
        notes.append(f"copying the other streams stopped at {seconds:.2f} s ({error})")
