"""Sound that MP4 cannot carry -> sound that it can, at the same times and of the same length."""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from numpy.typing import NDArray

from pipeline.media.container import exact

_log_level = threading.Lock()
"""There is one for all threads."""
# Of what other threads do meanwhile, FFmpeg's messages would be shown.
logging.getLogger("libav").addHandler(logging.NullHandler())

MOST_CHANNELS = 8
_CUSTOM_LAYOUT = re.compile(r"Stream #\d+:(\d+)\S* Audio: .* Hz, (\d+) channels \(")
_AAC_RATES = (
    *(7350, 8000, 11025, 12000, 16000, 22050, 24000),
    *(32000, 44100, 48000, 64000, 88200, 96000),
)
_AAC_LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1", "7.1")
"""What needs no program config element, which few players read."""
_ALAC_LAYOUTS = ("mono", "stereo", "3.0", "4.0", "5.0", "5.1")
_MOST_BITS_PER_SECOND = 96_000
"""Of a channel; sound of less than 24 kHz gets less."""
_GAP_SECONDS = 0.02
"""A shorter gap is the rounding of a container's clock; a longer one is filled with silence."""
_OVERLAP_SECONDS = 0.05
"""Where sound begins before the sound before it has ended by more than this, it is cut."""
_LONGEST_SILENCE_SECONDS = 600
"""Across a longer gap nothing is encoded: the next packet begins after it."""


def usual_layout(num_channels: int) -> str | None:
    """The name of the usual layout of so many channels; None if there is none."""
    try:
        return av.AudioLayout(f"{num_channels}c").name
    except ValueError:
        return None


def replace_custom_layouts(container: InputContainer) -> None:
    """Give streams whose channels are in an order of their own the usual layout instead.

    To be done before anything reads their layout: PyAV frees that of such a stream twice, which
    ends the process. Only FFmpeg's description of the file shows it.
    """
    if not container.streams.audio:
        return
    described: Any = container  # PyAV's declarations leave dumps_format out.
    with _log_level:
        level = av.logging.get_level()
        av.logging.set_level(av.logging.INFO)
        try:
            description = described.dumps_format()
        finally:
            av.logging.set_level(level)
    audio = {stream.index: stream for stream in container.streams.audio}
    for index, num_channels in _CUSTOM_LAYOUT.findall(description):
        if stream := audio.get(int(index)):
            layout = usual_layout(int(num_channels)) or f"{num_channels} channels"
            stream.codec_context.layout = layout


def has_layout(context: AudioCodecContext) -> bool:
    """Whether the source says which loudspeaker each channel is for."""
    return not context.layout.name.endswith("channels")


def encoder_name(context: AudioCodecContext) -> str:
    """The encoder for the sound of a decoder: without loss if that has lost nothing either."""
    if not context.codec.lossless:
        return "aac"
    return "alac" if _layout(context) in _ALAC_LAYOUTS else "flac"


class SoundEncoder:
    """Decodes the packets of one stream and encodes them into a new stream of an MP4 file.

    The samples go where the time stamps put them: a gap becomes silence, an overlap is cut.
    Packets that cannot be decoded are counted in `num_damaged`, and leave a gap.
    end_seconds: where to cut the sound off; None takes all.
    """

    def __init__(
        self, source: AudioStream, out: OutputContainer, encoder: str, end_seconds: float | None
    ) -> None:
        self.num_damaged = 0
        self._source = source
        self._decoder = source.codec_context
        if not has_layout(self._decoder):
            self._decoder.layout = _layout(self._decoder)
        target = out.add_stream(encoder, rate=_rate(self._decoder, encoder))
        assert isinstance(target, AudioStream)
        self.target: Stream = target
        self._encoder = target.codec_context
        self._encoder.layout = _encoded_layout(self._decoder, encoder)
        self._format = _sample_format(self._decoder, encoder)
        self._encoder.format = self._format if encoder == "flac" else f"{self._format}p"
        self._rate = self._encoder.sample_rate
        self._tick = Fraction(1, self._rate)
        self._encoder.time_base = self._tick
        if encoder == "aac":
            bits_per_second = min(_MOST_BITS_PER_SECOND, 4 * self._rate)
            self._encoder.bit_rate = bits_per_second * self._encoder.layout.nb_channels
        self._end = None if end_seconds is None else round(end_seconds * self._rate)
        self._next: int | None = None
        self._resampler: AudioResampler | None = None
        self._resampled: tuple[str, str, int] | None = None

    def convert(self, packet: av.Packet[Stream]) -> Iterator[av.Packet[Stream]]:
        """What the encoder makes of the next packet, which may be nothing yet."""
        try:
            frames = self._decoder.decode(packet)
        except av.FFmpegError:
            self.num_damaged += 1
            return
        for frame in frames:
            yield from self._encode(self._as_encoded(frame))

    def finish(self) -> Iterator[av.Packet[Stream]]:
        """What decoder and encoder still hold; no packet may follow."""
        try:
            frames = self._decoder.decode(None)
        except av.FFmpegError:
            frames = []
        for frame in frames:
            yield from self._encode(self._as_encoded(frame))
        yield from self._encode(self._left_to_resample())
        if self._next is not None:
            yield from self._out(None)

    def _as_encoded(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """Frames in the encoder's format, layout and rate, made of one of the decoder."""
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        ended: list[av.AudioFrame] = []
        if kind != self._resampled or self._resampler is None:
            # A recording may change from stereo to 5.1 and back in mid-stream.
            ended = self._left_to_resample()
            self._resampler = AudioResampler(
                format=self._format, layout=self._encoder.layout, rate=self._rate
            )
            self._resampled = kind
        return ended + self._resampler.resample(frame)

    def _left_to_resample(self) -> list[av.AudioFrame]:
        if self._resampler is None:
            return []
        # A resampler that has nothing to do hands on the None.
        frames = self._resampler.resample(None)
        return [frame for frame in frames if isinstance(frame, av.AudioFrame)]

    def _encode(self, frames: list[av.AudioFrame]) -> Iterator[av.Packet[Stream]]:
        for frame in frames:
            samples = frame.to_ndarray().reshape(-1, self._encoder.layout.nb_channels)
            begin = self._begin(frame)
            if self._next is not None:
                gap = begin - self._next
                if gap > _GAP_SECONDS * self._rate:
                    yield from self._silence(gap)
                elif gap < -_OVERLAP_SECONDS * self._rate:
                    samples = samples[-gap:]
                    begin = self._next
                else:
                    begin = self._next
            yield from self._place(samples, begin)

    def _begin(self, frame: av.AudioFrame) -> int:
        """Where a frame begins, in samples on the stream's clock."""
        time_base = exact(frame.time_base)
        if frame.pts is None or time_base is None:
            return self._next or 0
        return round(frame.pts * time_base * self._rate)

    def _silence(self, num_samples: int) -> Iterator[av.Packet[Stream]]:
        assert self._next is not None
        if num_samples > _LONGEST_SILENCE_SECONDS * self._rate:
            return
        end, num_channels = self._next + num_samples, self._encoder.layout.nb_channels
        dtype = np.dtype(_DTYPES[self._format])
        while self._next < end:
            length = min(self._rate, end - self._next)
            yield from self._place(np.zeros((length, num_channels), dtype), self._next)

    def _place(self, samples: NDArray[np.generic], begin: int) -> Iterator[av.Packet[Stream]]:
        """Encode samples, (samples, channels), that begin at a place on the stream's clock."""
        end = begin + len(samples)
        self._next = end
        if self._end is not None:
            samples = samples[: max(0, self._end - begin)]
        if not samples.size:
            return
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples).reshape(1, -1),
            format=self._format,
            layout=self._encoder.layout.name,
        )
        frame.sample_rate, frame.pts, frame.time_base = self._rate, begin, self._tick
        yield from self._out(frame)

    def _out(self, frame: av.AudioFrame | None) -> Iterator[av.Packet[Stream]]:
        try:
            packets = self._encoder.encode(frame)
        except av.FFmpegError:
            # Damaged sound may decode to what is no number, which no encoder takes.
            self.num_damaged += 1
            return
        for packet in packets:
            packet.stream = self._source  # As of a packet that is copied.
            yield packet


_DTYPES = {"s16": "i2", "s32": "i4", "flt": "f4"}


def _layout(context: AudioCodecContext) -> str:
    """The source's layout, or the usual one for so many channels."""
    name = context.layout.name
    return name if has_layout(context) else usual_layout(context.layout.nb_channels) or name


def _encoded_layout(context: AudioCodecContext, encoder: str) -> str:
    """The smallest layout of AAC that has all channels of the source; without loss, the same."""
    layout = _layout(context)
    if encoder != "aac":
        return layout
    # The sides of a layout without backs are the backs of another one.
    wanted = {channel.name for channel in av.AudioLayout(layout).channels}
    if not {"BL", "BR"} & wanted:
        wanted = {{"SL": "BL", "SR": "BR"}.get(name, name) for name in wanted}
    for candidate in _AAC_LAYOUTS:
        if wanted <= {channel.name for channel in av.AudioLayout(candidate).channels}:
            return candidate
    return "7.1" if len(wanted) > 2 else "stereo"


def _rate(context: AudioCodecContext, encoder: str) -> int:
    if encoder != "aac":
        return context.sample_rate
    return next((rate for rate in _AAC_RATES if rate >= context.sample_rate), _AAC_RATES[-1])


def _sample_format(context: AudioCodecContext, encoder: str) -> str:
    """In which samples sound is encoded: in more than 16 bits only where the source has them.

    Of the kinds in one plane: PyAV reads beyond the planes of eight channels, and crashes.
    """
    if encoder == "aac":
        return "flt"
    return "s32" if context.format.bytes > 2 else "s16"
