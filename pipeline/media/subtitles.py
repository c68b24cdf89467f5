"""Subtitles in text -> those of MP4 (mov_text), at the same times."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import OutputContainer
from av.stream import Stream
from av.subtitles.stream import SubtitleStream
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

_TICK = Fraction(1, 1000)
_FIELDS_BEFORE_TEXT = 8
"""Of an event in ASS, separated by commas."""


def is_text(stream: Stream) -> bool:
    """Whether a stream has subtitles in text that can be decoded."""
    context = stream.codec_context
    return isinstance(stream, SubtitleStream) and bool(context) and context.codec.text_sub


class SubtitleConverter:
    """Makes the packets of one stream those of a new stream of an MP4 file.

    What cannot be decoded is counted in `num_damaged`. Raises av.FFmpegError where the stream as a
    whole cannot be decoded.
    """

    def __init__(self, source: SubtitleStream, out: OutputContainer) -> None:
        self.num_damaged = 0
        self._source = source
        source.codec_context.open(strict=False)
        target = out.add_stream("mov_text")
        assert isinstance(target, SubtitleStream)
        self.target: Stream = target
        self._encoder = target.codec_context
        self._encoder.time_base = _TICK
        # Styles are looked up in it; the encoder does not open without.
        self._encoder.subtitle_header = source.codec_context.subtitle_header

    def convert(self, packet: av.Packet[Stream]) -> Iterator[av.Packet[Stream]]:
        """What is shown from a packet on; nothing if it cannot be decoded."""
        try:
            events = [s.ass for s in self._source.decode(packet) if isinstance(s, AssSubtitle)]
            if not events:
                return
            subtitles = SubtitleSet.create(text=_joined(events), start=0, end=0)
            made: av.Packet[Stream] = self._encoder.encode_subtitle(subtitles)
        except (av.FFmpegError, ValueError):
            self.num_damaged += 1
            return
        made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
        made.time_base = packet.time_base
        made.stream = self._source  # As of a packet that is copied.
        yield made

    def finish(self) -> Iterator[av.Packet[Stream]]:
        """Nothing: a decoder of subtitles holds nothing back."""
        yield from ()


def _joined(events: list[bytes]) -> bytes:
    """Lines that are shown at the same time, as one event in ASS."""
    texts = [event.split(b",", _FIELDS_BEFORE_TEXT)[-1] for event in events[1:]]
    return b"\\N".join([events[0], *texts])
