"""Annotated frames -> a video track that keeps the source's timeline, shape and colours."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from array import array
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import Flags
from av.video.stream import VideoStream

from pipeline.core.config import EncodeOptions
from pipeline.core.errors import EncodeError
from pipeline.core.machine import thread_ids
from pipeline.core.position import Beat, no_beat
from pipeline.core.text import counted
from pipeline.frames.codecs import CODECS, Codec, annotated_bits
from pipeline.media.color import YUV420P
from pipeline.media.container import open_written
from pipeline.media.frame import VideoInfo, plane_samples

# SVT-AV1 writes to the terminal on its own unless told to keep to errors.
os.environ.setdefault("SVT_LOG", "1")

_FALLBACK_FRAME_RATE = Fraction(25)
_FIELD_ROWS = 4
"""Fields of pictures with half as many rows of colours have a multiple of 2 rows."""
_CHECKED = 16
"""Of so many frames the times are compared once the file is finished."""


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
        codec = CODECS[options.codec]
        threads_before = thread_ids()
        self._pts = array("q")
        self._size_wh = codec.coded_size_wh(info.size_wh)
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
                f"{codec.encoder} refuses crf {codec.crf_for(options)}, preset "
                f"{options.preset or codec.preset}, {info.size_wh[0]}x{info.size_wh[1]} at "
                f"{info.frame_rate} fps ({error}): choose another --crf, --preset or --codec"
            ) from error

    def encode(self, image: av.VideoFrame, pts: int, duration: int, time_base: Fraction) -> None:
        """Take the next frame: yuv420p as deep as `annotated_bits`; times in ticks of time_base."""
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
        self, info: VideoInfo, codec: Codec, options: EncodeOptions, num_threads: int
    ) -> VideoStream:
        fields: dict[str, str] = {}
        if self._size_wh[1] % _FIELD_ROWS == 0:
            fields = codec.fields.get(info.field_order, {})
        stream = self._container.add_stream(
            codec.encoder,
            rate=info.frame_rate or _FALLBACK_FRAME_RATE,
            options={
                "crf": str(codec.crf_for(options)),
                codec.preset_option: options.preset or codec.preset,
                **codec.extra_for(num_threads, info),
                **(codec.default_preset_extra if options.preset is None else {}),
                **fields,
            },
        )
        assert isinstance(stream, VideoStream)
        context = stream.codec_context
        stream.width, stream.height = self._size_wh
        stream.pix_fmt = YUV420P[annotated_bits(info, options)]
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


def require_decodable(
    path: Path, options: EncodeOptions, num_frames: int, beat: Beat = no_beat
) -> None:
    """Decode a finished video track as far as its encoder makes that necessary.

    num_frames: that it holds, 1 or more. Raises EncodeError for what a decoder does not take.
    """
    codec = CODECS[options.codec]
    wanted, found = num_frames if codec.decode_all else 1, 0
    try:
        with open_written(path) as container:
            stream = container.streams.video[0]
            if codec.decode_all:
                stream.thread_type = "AUTO"
            else:
                stream.codec_context.thread_count = 1  # Of one frame.
            for _ in itertools.islice(container.decode(stream), wanted):
                found += 1
                beat()
            reason = f"{found} of {counted(num_frames, 'frame')} come out"
    except av.FFmpegError as error:
        found, reason = 0, error.strerror or type(error).__name__
    if found < wanted:
        raise EncodeError(
            f"the output of {codec.encoder} cannot be decoded ({reason}): process or render the "
            "clip with another --crf, --preset or --codec"
        )


def _padded(image: av.VideoFrame, width: int, height: int) -> av.VideoFrame:
    """The image with its last row and column repeated up to a size."""
    padded, bits = av.VideoFrame(width, height, image.format.name), image.format.components[0].bits
    for source, target in zip(image.planes, padded.planes, strict=True):
        rows, out = plane_samples(source, bits), plane_samples(target, bits)
        out[: source.height, : source.width] = rows
        out[source.height :, : source.width] = rows[-1]
        out[:, source.width :] = out[:, source.width - 1 : source.width]
    return padded
