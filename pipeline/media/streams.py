"""What becomes of the source's other streams in an MP4 file: copied, encoded, or left out."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Literal, Protocol, TypeAlias

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Disposition, Stream
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream

from pipeline.core.text import counted
from pipeline.media.audio import (
    MOST_CHANNELS,
    SoundEncoder,
    encoder_name,
    has_layout,
    replace_custom_layouts,
    usual_layout,
)
from pipeline.media.carried import CARRY_ALL, Carried
from pipeline.media.headers import UNKNOWN, TrackHeader, read_track_headers
from pipeline.media.metadata import (
    is_chapter_or_timecode_track,
    metadata_left_out,
    metadata_warnings,
)
from pipeline.media.subtitles import SubtitleConverter, is_text

TimedPacket: TypeAlias = "tuple[float, av.Packet[Stream], Stream]"
"""A packet with its decoding time in seconds and the stream of the output that it is for."""
_MISREAD_BY_PLAYERS = ("vorbis", "truehd")
"""FFmpeg writes them into MP4, in a way that few players read."""
_MOV_TEXT = "mov_text"
_PART_OF_ANOTHER = Disposition.timed_thumbnails | 0x80000
"""The second one is AV_DISPOSITION_DEPENDENT, for which PyAV has no name."""
_PCM_OF_16_BITS = ("pcm_s16le", "pcm_s16be")
_TAGS_OF_REDACTED = ("language",)


@dataclass(frozen=True, slots=True)
class StreamMapping:
    """What becomes of one stream of the source.

    encoder: what "encode" encodes with. warning: a line for the user where something changes.
    """

    index: int
    action: Literal["copy", "encode", "leave out"]
    encoder: str = ""
    warning: str | None = None


class Converter(Protocol):
    """Makes other packets of those of one stream; `num_damaged` could not be decoded."""

    target: Stream
    num_damaged: int

    def convert(self, packet: av.Packet[Stream]) -> Iterator[av.Packet[Stream]]: ...

    def finish(self) -> Iterator[av.Packet[Stream]]: ...


def stream_warnings(
    source: Path,
    container: InputContainer,
    annotated: VideoStream,
    left_out: Mapping[int, str] = MappingProxyType({}),
    carried: Carried = CARRY_ALL,
) -> list[str]:
    """What of an open clip an MP4 file will not have as it was, a line each.

    annotated: the stream that is another one there. left_out: why some streams cannot be carried,
    whatever their codec, by index.
    """
    mappings = map_streams(source, container, annotated, left_out, carried)
    lost = metadata_warnings if carried.others else metadata_left_out
    return [
        *(mapping.warning for mapping in mappings if mapping.warning),
        *lost(container, annotated),
    ]


def map_streams(
    source: Path,
    container: InputContainer,
    annotated: VideoStream,
    left_out: Mapping[int, str] = MappingProxyType({}),
    carried: Carried = CARRY_ALL,
) -> list[StreamMapping]:
    """A mapping of each stream but the video that is annotated, in their order.

    left_out: why some cannot be carried, whatever their codec, by index.
    """
    replace_custom_layouts(container)
    headers = read_track_headers(source, container)
    others = [
        stream
        for stream in container.streams
        if stream.index != annotated.index
        and not is_chapter_or_timecode_track(
            container, stream, headers.get(stream.index, UNKNOWN).handler
        )
    ]
    reasons = {**_not_carried(others, carried), **left_out}
    return [
        _left_out(stream, reasons[stream.index])
        if stream.index in reasons
        else _mapping(stream, headers.get(stream.index, UNKNOWN))
        for stream in others
    ]


def _not_carried(streams: Sequence[Stream], carried: Carried) -> dict[int, str]:
    """Why streams that could be carried are not to be, by index."""
    reasons = {}
    for stream in streams:
        if stream.type == "audio" and not carried.sound:
            reasons[stream.index] = "--drop-audio"
        elif stream.type != "audio" and not carried.others:
            reasons[stream.index] = "with --redact only the picture and the sound are kept"
    return reasons


def add_streams(
    out: OutputContainer,
    source: InputContainer,
    mappings: Iterable[StreamMapping],
    end_seconds: float | None,
    carried: Carried = CARRY_ALL,
) -> tuple[dict[int, Stream], dict[int, Converter]]:
    """Add the streams of the mappings to a file.

    end_seconds: where to cut sound off; None takes all. carried: without others, of their tags the
    language only. Returns the stream of the output for each
    index of the source, and what converts the packets where they are not copied.
    """
    targets: dict[int, Stream] = {}
    converters: dict[int, Converter] = {}
    for mapping in mappings:
        stream = source.streams[mapping.index]
        if mapping.action == "leave out":
            continue
        if mapping.action == "encode":
            converters[mapping.index] = _converter(stream, out, mapping.encoder, end_seconds)
            target: Stream = converters[mapping.index].target
        else:
            target = _add_copy(out, stream)
        kept = stream.metadata.keys() if carried.others else _TAGS_OF_REDACTED
        tags = {key: value for key, value in stream.metadata.items() if key in kept}
        target.metadata.update(tags)
        target.disposition = stream.disposition
        if isinstance(stream, VideoStream):
            # The annotated one is what players are to show.
            target.disposition = stream.disposition & ~Disposition.default
        targets[mapping.index] = target
    return targets, converters


def converted(
    packets: Iterable[TimedPacket], converters: dict[int, Converter]
) -> Iterator[TimedPacket]:
    """Packets of several streams, those converted that have a converter."""

    def timed(made: Iterable[av.Packet[Stream]], target: Stream) -> Iterator[TimedPacket]:
        for packet in made:
            yield (packet.dts or 0) * float(packet.time_base), packet, target

    for seconds, packet, target in packets:
        converter = converters.get(packet.stream.index)
        if converter is None:
            yield seconds, packet, target
        else:
            yield from timed(converter.convert(packet), target)
    for converter in converters.values():
        yield from timed(converter.finish(), converter.target)


def damage(source: InputContainer, converters: dict[int, Converter]) -> list[str]:
    """A note for each stream of which packets could not be decoded."""
    return [
        f"stream {index} ({source.streams[index].type}): "
        f"{counted(converter.num_damaged, 'damaged packet')} left out"
        for index, converter in converters.items()
        if converter.num_damaged
    ]


def _mapping(stream: Stream, header: TrackHeader) -> StreamMapping:
    if header.encrypted:
        return _left_out(stream, "it is encrypted")
    if isinstance(stream, AudioStream) and stream.codec_context:
        return _audio_mapping(stream)
    if header.auxiliary or int(stream.disposition) & _PART_OF_ANOTHER:
        return _left_out(stream, "it belongs to the source video, which was encoded again")
    if stream.type in ("video", "subtitle") and _mp4_takes(lambda out: _add_copy(out, stream)):
        return StreamMapping(stream.index, "copy")
    if is_text(stream) and _mp4_takes(lambda out: _converter(stream, out, _MOV_TEXT, None).target):
        warning = (
            f"{_name(stream)} was converted to {_MOV_TEXT}, the only text of MP4: styles may be "
            "lost"
        )
        return StreamMapping(stream.index, "encode", _MOV_TEXT, warning)
    return _left_out(stream, "MP4 does not support it")


def _converter(
    stream: Stream, out: OutputContainer, encoder: str, end_seconds: float | None
) -> Converter:
    if isinstance(stream, SubtitleStream):
        return SubtitleConverter(stream, out)
    assert isinstance(stream, AudioStream)
    return SoundEncoder(stream, out, encoder, end_seconds)


def _audio_mapping(stream: AudioStream) -> StreamMapping:
    context, name = stream.codec_context, _name(stream)
    if not _is_misread(context.codec.name) and _mp4_takes(lambda out: _add_copy(out, stream)):
        return StreamMapping(stream.index, "copy")
    encoder = encoder_name(context)
    if context.layout.nb_channels > MOST_CHANNELS:
        return _left_out(
            stream, f"neither MP4 nor an encoder supports its {context.layout.nb_channels} channels"
        )
    if not context.sample_rate or not _mp4_takes(
        lambda out: _converter(stream, out, encoder, None).target
    ):
        return _left_out(stream, "MP4 does not support it, and it cannot be encoded")
    loss = "" if encoder == "aac" else ", without loss up to 24 bits"
    return StreamMapping(
        stream.index,
        "encode",
        encoder,
        f"{name} was encoded to {encoder.upper()}{loss}: players do not read {context.name} in MP4",
    )


def _is_misread(codec: str) -> bool:
    """Whether players take sound of a codec for other sound, or for none, in MP4.

    Without support of ISO 23003-5 they take PCM of any kind for 16 bits.
    """
    is_pcm = codec.startswith("pcm_")
    return codec in _MISREAD_BY_PLAYERS or (is_pcm and codec not in _PCM_OF_16_BITS)


def _left_out(stream: Stream, why: str) -> StreamMapping:
    return StreamMapping(stream.index, "leave out", warning=f"{_name(stream)} was left out: {why}")


def _name(stream: Stream) -> str:
    """How to speak of a stream."""
    codec = stream.codec_context.name if stream.codec_context else getattr(stream, "name", None)
    about = [stream.type, codec or stream.metadata.get("handler_name") or "unknown codec"]
    if stream.disposition & Disposition.attached_pic:
        about.append("attached picture")
    return f"stream {stream.index} ({', '.join(about)})"


def _add_copy(out: OutputContainer, stream: Stream) -> Stream:
    copy = out.add_stream_from_template(stream, opaque=True)
    if isinstance(stream, AudioStream) and isinstance(copy, AudioStream):
        context = stream.codec_context
        named = context.layout.name if has_layout(context) else None
        # Always, and before anything reads it: the copy has the file's, which may be a custom one.
        if layout := named or usual_layout(context.layout.nb_channels):
            copy.codec_context.layout = layout
    return copy


def _mp4_takes(add: Callable[[OutputContainer], Stream]) -> bool:
    """Ask the muxer itself, by writing a file with this stream alone."""
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as trial:
            added = add(trial)
            trial.start_encoding()
            if isinstance(added, AudioStream) and added.codec_context.name in _PCM_OF_16_BITS:
                # The channel layout is written at the end, if there is anything to describe.
                packet = av.Packet(bytes(2 * added.codec_context.layout.nb_channels))
                packet.stream, packet.time_base = added, Fraction(1, added.sample_rate)
                packet.pts = packet.dts = 0
                trial.mux(packet)
    except (av.FFmpegError, ValueError, AttributeError):
        return False  # AttributeError: FFmpeg does not know the codec at all.
    return True
