"""Annotated frames -> a video track that keeps the source's timeline, shape and colours."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.codec.context import Flags
from av.video.stream import VideoStream

from pipeline.core.config import EncodeOptions
from pipeline.core.errors import EncodeError
from pipeline.core.machine import thread_ids
from pipeline.core.position import Beat, no_beat
from pipeline.core.text import counted
from pipeline.media.frame import BOTTOM_FIELD_FIRST, TOP_FIELD_FIRST, VideoInfo, plane_rows

# SVT-AV1 writes to the terminal on its own unless told to keep to errors.
os.environ.setdefault("SVT_LOG", "1")

_FALLBACK_FRAME_RATE = Fraction(25)
_FIELD_ROWS = 4
"""Fields of pictures with half as many rows of colours have a multiple of 2 rows."""
_CHECKED = 16
"""Of so many frames the times are compared once the file is finished."""


@dataclass(frozen=True, slots=True)
class _Codec:
    """An encoder of FFmpeg and its default settings.

    tag: the name of the codec in MP4 that players look for.
    preset_option: the option that takes --preset.
    fields: by field order, what makes it encode fields as such; empty where it cannot.
    even_sizes: whether an odd width or height must be made even.
    least_px: the shortest side that it takes; most_fps: the highest frame rate; None for no limit.
    decode_all: whether every frame it made has to be decoded, as it was seen to make some that no
        decoder takes; of the others one frame is enough.
    last_primaries: the largest number of colour primaries that it takes.
    captions: whether it keeps closed captions that come with the pictures.
    extra: other options; "{threads}" in a value stands for half of the threads, rounded down, but 1
        at least.
    """

    encoder: str
    tag: str
    crf: int
    preset: str
    preset_option: str = "preset"
    even_sizes: bool = False
    decode_all: bool = False
    last_primaries: int = 22
    least_px: int = 1
    most_fps: int | None = None
    captions: bool = False
    extra: dict[str, str] = field(default_factory=dict)
    fields: dict[int, dict[str, str]] = field(default_factory=dict)
    default_preset_extra: dict[str, str] = field(default_factory=dict)

    def extra_for(self, num_threads: int) -> dict[str, str]:
        half = str(max(1, num_threads // 2))
        return {name: value.replace("{threads}", half) for name, value in self.extra.items()}


# No B-frames: MP4 keeps durations as differences of decoding times, so that only packets in the
# order of the frames keep theirs exactly. It also takes a fifth of x264's time off, for files
# that are a fifth larger at the same quality.
# x264 spends a quarter of its time on partitions of P frames that take 0.5 to 2.3% off the size
# at equal quality; who names a preset gets all that belongs to it.
_CODECS = {
    "h264": _Codec(
        "libx264",
        "avc1",
        crf=23,
        preset="veryfast",
        even_sizes=True,
        last_primaries=12,
        fields={
            TOP_FIELD_FIRST: {"x264-params": "tff=1"},
            BOTTOM_FIELD_FIRST: {"x264-params": "bff=1"},
        },
        captions=True,
        extra={"bf": "0"},
        default_preset_extra={"partitions": "i4x4"},
    ),
    "hevc": _Codec(
        "libx265",
        "hvc1",
        crf=28,
        preset="veryfast",
        even_sizes=True,
        last_primaries=12,
        least_px=16,
        captions=True,
        extra={"x265-params": "log-level=error:bframes=0", "a53cc": "1"},
    ),
    "av1": _Codec(
        "libsvtav1",
        "av01",
        crf=35,
        preset="12",
        even_sizes=True,
        decode_all=True,
        least_px=4,
        most_fps=240,
        # It takes no other number: by default it starts fifty threads. Its bytes are the same.
        extra={"svtav1-params": "lp={threads}"},
    ),
    "vp9": _Codec(
        "libvpx-vp9",
        "vp09",
        crf=33,
        preset="8",
        preset_option="cpu-used",
        extra={"deadline": "realtime", "row-mt": "1", "b": "0"},
    ),
}


@contextlib.contextmanager
def ordinary_priority() -> Iterator[None]:
    """Keep the scheduling of this thread, and give it to those that start meanwhile.

    Run by root, SVT-AV1 makes its caller and its own threads real-time, ahead of inference and of
    everything else on the machine.
    """
    if not hasattr(os, "sched_setscheduler"):  # Elsewhere than on Linux.
        yield
        return
    before, policy, parameters = thread_ids(), os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread_id in {0, *(thread_ids() - before)}:  # 0 is the calling thread.
            with contextlib.suppress(OSError):
                os.sched_setscheduler(thread_id, policy, parameters)


_MOST_LOOKAHEAD = 64
"""How many frames an encoder may hold before it begins."""


class VideoEncoder:
    """Writes one video track to an MP4 file of its own; for one thread at a time.

    worker_threads: the kernel's ids of the threads that the encoder started.

    Raises EncodeError if the encoder refuses the options, the size or a frame.
    """

    def __init__(
        self, path: Path, info: VideoInfo, options: EncodeOptions, *, num_threads: int = 1
    ) -> None:
        codec = _CODECS[options.codec]
        threads_before = thread_ids()
        self._pts = array("q")
        step = 2 if codec.even_sizes else 1
        self._size_wh = _rounded_up(info.size_wh, step)
        self._durations: dict[int, int] = {}
        # Edit lists count in ticks of the movie: by default milliseconds.
        self._container = av.open(
            f"file:{path}",
            "w",
            format="mp4",
            options={"movie_timescale": str(info.time_base.denominator)},
        )
        try:
            self._stream = self._add_stream(info, codec, options, num_threads)
            self._stream.codec_context.thread_count = num_threads
            with ordinary_priority():
                self._stream.codec_context.open()
            self.worker_threads = thread_ids() - threads_before
        except (av.FFmpegError, ValueError) as error:
            self._container.close()
            raise EncodeError(
                f"{codec.encoder} refuses crf {_crf(codec, options)}, preset "
                f"{options.preset or codec.preset}, {info.size_wh[0]}x{info.size_wh[1]} at "
                f"{info.frame_rate} fps ({error}): choose another --crf, --preset or --codec"
            ) from error

    def encode(self, image: av.VideoFrame, pts: int, duration: int, time_base: Fraction) -> None:
        """Take the next frame: 8-bit yuv420p, pts and duration in ticks of time_base."""
        try:
            if (image.width, image.height) != self._size_wh:
                image = _padded(image, *self._size_wh)
            image.pts, image.dts, image.duration, image.time_base = pts, None, duration, time_base
            # The encoder chooses its own frame types; the source's would force them.
            image.pict_type = 0
            self._durations[pts] = duration
            self._write(self._encoded(image))
        except (av.FFmpegError, ValueError) as error:
            raise EncodeError(f"the encoder refused the frame ({error})") from error
        self._pts.append(pts)

    @property
    def num_frames(self) -> int:
        """How many frames were taken."""
        return len(self._pts)

    def some_times(self) -> list[tuple[int, int]]:
        """(number, pts) of the first and the last frame taken, and of some between, in order."""
        numbers = {0, self.num_frames - 1} if self._pts else set()
        numbers.update(
            random.Random(0).sample(range(self.num_frames), min(_CHECKED, self.num_frames))  # noqa: S311
        )
        return [(number, self._pts[number]) for number in sorted(numbers)]

    def _encoded(self, image: av.VideoFrame) -> list[av.Packet[VideoStream]]:
        """What the encoder gives back; libvpx starts its threads with the first frame of its own.

        Which it takes only after it has looked ahead.
        """
        if self.worker_threads or self.num_frames > _MOST_LOOKAHEAD:
            return self._stream.encode(image)
        threads_before = thread_ids()
        packets = self._stream.encode(image)
        self.worker_threads = thread_ids() - threads_before
        return packets

    def flush(self) -> None:
        """Write what the encoder still holds; no frame may follow."""
        try:
            self._write(self._stream.encode(None))
        except (av.FFmpegError, ValueError) as error:
            raise EncodeError(f"the last frames could not be encoded ({error})") from error

    def _write(self, packets: list[av.Packet[VideoStream]]) -> None:
        for packet in packets:
            assert packet.pts is not None
            # Not every encoder passes durations on.
            packet.duration = self._durations.pop(packet.pts)
            self._container.mux(packet)

    def close(self) -> None:
        """Finish the file."""
        try:
            self._container.close()
        except (av.FFmpegError, ValueError) as error:
            raise EncodeError(f"the video track could not be finished ({error})") from error

    def abandon(self) -> None:
        """Let go of the file, finished or not, and of the encoder; nothing may follow."""
        container = self.__dict__.pop("_container", None)
        if container is None:
            return
        with contextlib.suppress(av.FFmpegError):
            # The file is thrown away and the error that led here is already on its way.
            container.close()
        # The encoder ends here and now, not when and on whatever thread the garbage collector runs.
        self.__dict__.pop("_stream", None)

    def _add_stream(
        self, info: VideoInfo, codec: _Codec, options: EncodeOptions, num_threads: int
    ) -> VideoStream:
        fields: dict[str, str] = {}
        if self._size_wh[1] % _FIELD_ROWS == 0:
            fields = codec.fields.get(info.field_order, {})
        stream = self._container.add_stream(
            codec.encoder,
            rate=info.frame_rate or _FALLBACK_FRAME_RATE,
            options={
                "crf": str(_crf(codec, options)),
                codec.preset_option: options.preset or codec.preset,
                **codec.extra_for(num_threads),
                **(codec.default_preset_extra if options.preset is None else {}),
                **fields,
            },
        )
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        stream.width, stream.height = self._size_wh
        stream.pix_fmt = "yuv420p"
        context.time_base = info.time_base
        context.codec_tag = codec.tag
        context.flags |= Flags.frame_duration
        if info.sample_aspect_ratio:
            context.sample_aspect_ratio = info.sample_aspect_ratio
        context.color_range = info.color.range
        if info.color.primaries <= codec.last_primaries:
            context.color_primaries = info.color.primaries
        context.color_trc = info.color.trc
        context.colorspace = info.color.space
        if fields:
            context.field_order = info.field_order
            context.flags |= Flags.interlaced_dct | Flags.interlaced_me
        return stream


def require_encodable(info: VideoInfo, options: EncodeOptions) -> None:
    """Raise EncodeError where the codec has no such frames or rates."""
    codec = _CODECS[options.codec]
    width, height = _rounded_up(info.size_wh, 2 if codec.even_sizes else 1)
    if min(width, height) < codec.least_px:
        raise EncodeError(
            f"{info.name}: {codec.encoder} takes no frames with less than {codec.least_px} px a "
            f"side, and these are {info.size_wh[0]}x{info.size_wh[1]}: choose another --codec"
        )
    if codec.most_fps and info.frame_rate and info.frame_rate > codec.most_fps:
        raise EncodeError(
            f"{info.name}: {codec.encoder} takes no more than {codec.most_fps} frames per second, "
            f"and this clip has {float(info.frame_rate):.4g}: choose another --codec"
        )


def encoding_warnings(info: VideoInfo, options: EncodeOptions) -> tuple[str, ...]:
    """What of the pictures the codec has no place for, a line each."""
    if info.has_captions and options.output_size is not None:
        return ("closed captions in the video are not carried with --output-size",)
    if not info.has_captions or _CODECS[options.codec].captions:
        return ()
    keeping = " or ".join(name for name, codec in _CODECS.items() if codec.captions)
    return (
        f"closed captions in the video are not carried in {options.codec}: --codec {keeping} keeps "
        "them",
    )


def require_decodable(
    path: Path, options: EncodeOptions, num_frames: int, beat: Beat = no_beat
) -> None:
    """Decode a finished video track as far as its encoder makes that necessary.

    num_frames: that it holds, 1 or more. Raises EncodeError for what a decoder does not take.
    """
    codec = _CODECS[options.codec]
    wanted, found = num_frames if codec.decode_all else 1, 0
    try:
        with av.open(f"file:{path}") as container:
            stream = container.streams.video[0]
            if codec.decode_all:
                stream.thread_type = "AUTO"
            for _ in itertools.islice(container.decode(stream), wanted):
                found += 1
                beat()
            reason = f"{found} of {counted(num_frames, 'frame')} come out"
    except av.FFmpegError as error:
        found, reason = 0, error.strerror or type(error).__name__
    if found < wanted:
        raise EncodeError(
            f"what {codec.encoder} made of the frames cannot be decoded ({reason}): choose "
            "another --crf, --preset or --codec"
        )


def encoder_settings(options: EncodeOptions, num_threads: int) -> dict[str, Any]:
    """The settings of the encoder for these options."""
    codec = _CODECS[options.codec]
    return {
        "encoder": codec.encoder,
        "crf": _crf(codec, options),
        "preset": options.preset or codec.preset,
        "threads": num_threads,
        **(codec.default_preset_extra if options.preset is None else {}),
    }


def _crf(codec: _Codec, options: EncodeOptions) -> int:
    return codec.crf if options.crf is None else options.crf


def _rounded_up(size_wh: tuple[int, int], step: int) -> tuple[int, int]:
    width, height = size_wh
    return -(-width // step) * step, -(-height // step) * step


def _padded(image: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """The image with its last row and column repeated up to a size."""
    padded = av.VideoFrame(width, height, image.format.name)
    for source, target in zip(image.planes, padded.planes, strict=True):
        rows, out = plane_rows(source)[:, : source.width], plane_rows(target)
        out[: source.height, : source.width] = rows
        out[source.height :, : source.width] = rows[-1]
        out[:, source.width : target.width] = out[:, source.width - 1 : source.width]
    return padded
