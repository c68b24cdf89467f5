"""A file -> its frames: every one, upright, in presentation order, on the source's timeline."""

from __future__ import annotations

import errno
import itertools
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from pipeline.color import color_warnings, make_convertible, tags_of_planes
from pipeline.config import DEFAULT_LIMITS, LimitOptions
from pipeline.container import check_frame_rate, check_size, exact, max_pixels, open_input
from pipeline.errors import InputError
from pipeline.frames import WHOLE, Frame, Segment, SourceFaults, VideoInfo
from pipeline.geometry import Display, geometry_of
from pipeline.machine import thread_ids
from pipeline.picture_track import picture_track
from pipeline.side_data import side_data_warnings

_FEW_FRAMES = 3000
"""So many are read one after the other where only some of them are needed."""
MOST_TICKS = 2**31 - 1
"""The longest time between two frames or packets that an MP4 file can keep, in ticks."""
_JUMP_SECONDS = 0.5
"""Time stamps that fall back by more than this begin a new recording in the same file."""


class VideoReader:
    """The frames of a clip's best video stream; a FrameSource.

    Raises InputError if the file cannot be opened, exceeds a limit, or not one frame of it can be
    decoded. What is broken further in is skipped and counted in `faults`.
    """

    def __init__(
        self, path: Path, limits: LimitOptions = DEFAULT_LIMITS, *, num_threads: int = 1
    ) -> None:
        self.faults = SourceFaults()
        self._path = path
        self._limits = limits
        self._num_threads = num_threads
        self._ahead: _Placed | None = None
        self._reached_pts: int | None = None
        self._num_cut = 0
        self._at_beginning = True
        self._decoding = threading.Lock()
        self.worker_threads: frozenset[int] = frozenset()
        self._open()
        try:
            first = next(self._images, None)
            if first is None:
                reason = self.faults.first_error or "no frame in its video stream"
                if reason == os.strerror(errno.EINVAL):
                    # All that FFmpeg says of a frame that is too large for max_pixels.
                    reason += "; frames larger than --max-size are not decoded"
                raise InputError(f"{path}: cannot decode any frame ({reason})")
            self._ahead = self._placed(first)
            self.geometry = geometry_of(first, self._header.crop)
            self._decoded_wh = (first.width, first.height)
            self.info = self._describe(path, first)
            check_size(path, self.info.size_wh, limits)
            check_frame_rate(path, self.info.frame_rate, limits)
        except BaseException:
            self._container.close()
            raise

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def frames(self, segment: Segment = WHOLE) -> Iterator[Frame]:
        """The frames of a segment, counted from 0.

        The one that follows the last segment taken to its end is simply read on to; for another
        one, the clip is searched here, and what that mends or skips is counted before it returns.
        """
        if segment.start_pts is None:
            if not self._at_beginning:
                self._reopen()
        elif self._reached_pts != segment.start_pts:
            self._search(segment.start_pts, segment.seek_pts)
        self._at_beginning, self._reached_pts = False, None
        return self._frames_to(segment.end_pts)

    def _frames_to(self, end_pts: int | None) -> Iterator[Frame]:
        display, resize = Display(self.geometry), VideoReformatter()
        for index in itertools.count():
            placed = self._next_placed()
            if placed is None or (end_pts is not None and placed.pts >= end_pts):
                self._ahead = placed
                self._reached_pts = end_pts
                return
            image = placed.image
            make_convertible(image)
            if image.is_corrupt:
                self._count_corrupt()
            if (image.width, image.height) != self._decoded_wh:
                self.faults.resized_frames += 1
                image = resize.reformat(image, *self._decoded_wh, threads=1)
            yield Frame(index, placed.pts, placed.duration, self._time_base, display(image))

    def _search(self, start_pts: int, seek_pts: int | None) -> None:
        """Read up to the first frame that is not before start_pts; what is read is let go."""
        if seek_pts is not None:
            self._container.seek(seek_pts, stream=self._stream)
            self._begin()
            self._ahead = self._next_placed()
        if seek_pts is None or self._ahead is None or self._ahead.pts > start_pts:
            # Not found, or too far: not every container is as good as its index.
            self._reopen()
        while (placed := self._next_placed()) is not None and placed.pts < start_pts:
            pass
        self._ahead = placed

    def _next_placed(self) -> _Placed | None:
        """The next image with its place; None at the end."""
        if self._ahead is not None:
            placed, self._ahead = self._ahead, None
            return placed
        with self._decoding:
            image = next(self._images, None)
        return None if image is None else self._placed(image)

    def _placed(self, image: av.VideoFrame) -> _Placed:
        return _Placed(*self._timeline.place(image), image)

    def _open(self) -> None:
        self._container = open_input(self._path, self._limits)
        try:
            self._stream, self._header = picture_track(self._path, self._container)
            # Slices only: a decoder of whole frames in parallel, when it is drained, silently
            # drops every frame behind the first broken one.
            self._stream.thread_type = "SLICE"
            self._stream.codec_context.thread_count = self._num_threads
            self._stream.codec_context.options = {"max_pixels": str(max_pixels(self._limits))}
        except BaseException:
            self._container.close()
            raise
        self._at_beginning, self._reached_pts = True, None
        self._begin()

    def _reopen(self) -> None:
        """Begin with the clip once more: not every file can be sought to where it begins."""
        self._container.close()
        self._open()

    def _begin(self) -> None:
        """Decode from where the container is."""
        self._images: Iterator[av.VideoFrame] = self._decode()
        self._timeline = _Timeline(self._time_base, exact(self._stream.average_rate), self.faults)
        self._ahead = None

    def sample(self, count: int) -> Iterator[Frame]:
        """At most `count` frames, spread over the clip; instead of iterating over all.

        In a long clip these are key frames, which can be had without those between them.
        """
        total = self.info.num_frames_expected or self._count_packets()
        if not self.info.duration_seconds or total <= _FEW_FRAMES:
            step = max(1, -(-total // count))
            yield from itertools.islice((f for f in self if f.index % step == 0), count)
            return
        display, seen = Display(self.geometry), set()
        start = self._stream.start_time or 0
        for part in range(count):
            seconds = (part + 0.5) / count * self.info.duration_seconds
            self._container.seek(start + int(seconds / self._time_base), stream=self._stream)
            self._begin()
            image = next(self._images, None)
            if image is not None and image.pts is not None and image.pts not in seen:
                seen.add(image.pts)
                make_convertible(image)
                yield Frame(len(seen) - 1, image.pts, 1, self._time_base, display(image))

    def _count_packets(self) -> int:
        """About how many frames there are where the container does not say; nothing is decoded."""
        with open_input(self._path, self._limits) as container:
            try:
                return sum(packet.size > 0 for packet in container.demux(video=self._stream.index))
            except av.FFmpegError:
                return 0

    def close(self) -> None:
        """Let go of the file; not while another thread is inside the decoder and hangs there."""
        if self._decoding.acquire(blocking=False):
            self._container.close()
            self._decoding.release()

    @property
    def _time_base(self) -> Fraction:
        time_base = exact(self._stream.time_base)
        assert time_base is not None
        return time_base

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Images in presentation order; broken packets are counted and left out."""
        context = self._stream.codec_context
        num_packets = num_images = num_broken = 0
        for packet in self._packets():
            num_packets += packet is not None and not packet.is_discard
            cut = packet is not None and packet.is_corrupt
            num_broken += cut
            try:
                for image in self._decoded(packet):
                    num_images += 1
                    yield image
            except av.FFmpegError as error:
                self._note_broken(error.strerror or str(error), counted=cut)
                num_broken += not cut
        if context.name == "libdav1d":
            # It says nothing of packets that it cannot decode, and makes one image of each other.
            self.faults.broken_packets += max(0, num_packets - num_images - num_broken)

    def _decoded(self, packet: av.Packet[VideoStream] | None) -> list[av.VideoFrame]:
        """What the decoder makes of a packet; with the first one it starts its threads."""
        context = self._stream.codec_context
        if context.is_open:
            return context.decode(packet)
        threads_before = thread_ids()
        try:
            return context.decode(packet)
        finally:
            self.worker_threads = thread_ids() - threads_before

    def _note_broken(self, reason: str, *, counted: bool) -> None:
        """Count a packet that cannot be decoded; counted: the container said so before."""
        if counted:
            self._num_cut = max(0, self._num_cut - 1)  # No image will come of it.
            self.faults.first_error = self.faults.first_error or reason
        else:
            self.faults.note_broken_packet(reason)

    def _count_corrupt(self) -> None:
        """Count a corrupt image, unless it is that of a packet which was counted before."""
        if self._num_cut:
            self._num_cut -= 1
        else:
            self.faults.corrupt_frames += 1

    def _packets(self) -> Iterator[av.Packet[VideoStream] | None]:
        """The stream's packets, then None, which makes the decoder give up what it holds."""
        cut = False
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    cut = packet.is_corrupt
                    self.faults.broken_packets += cut
                    self._num_cut += cut
                    yield packet
        except av.FFmpegError as error:
            self._note_broken(f"reading stopped: {error.strerror or error}", counted=cut)
        yield None

    def _describe(self, path: Path, image: av.VideoFrame) -> VideoInfo:
        stream, container = self._stream, self._container
        aspect = exact(stream.sample_aspect_ratio)
        if self.geometry.turned and aspect:
            aspect = 1 / aspect
        duration: float | None
        if stream.duration is not None:
            duration = float(stream.duration * self._time_base)
        else:
            duration = container.duration / av.time_base if container.duration else None
        return VideoInfo(
            name=path.name.encode("utf-8", "replace").decode("utf-8"),
            container=container.format.name,
            codec=stream.codec_context.name,
            size_wh=self.geometry.size_wh,
            pix_fmt=image.format.name,
            time_base=self._time_base,
            frame_rate=exact(stream.average_rate or stream.guessed_rate),
            sample_aspect_ratio=aspect,
            color=tags_of_planes(image),
            rotation_degrees=self.geometry.rotation_degrees,
            duration_seconds=duration,
            num_frames_header=stream.frames or None,
            bit_rate=stream.bit_rate or container.bit_rate or None,
            num_audio_streams=len(container.streams.audio),
            num_subtitle_streams=len(container.streams.subtitles),
            start_pts=stream.start_time or 0,
            crop=self._header.crop,
            warnings=(
                *self.geometry.warnings,
                *side_data_warnings(image),
                *color_warnings(image, stream.codec_context.codec_tag),
            ),
        )


@dataclass(frozen=True, slots=True)
class _Placed:
    """An image with its place on the mended timeline, in ticks."""

    pts: int
    duration: int
    image: av.VideoFrame


class _Timeline:
    """Takes each frame's place from the source, and mends what the muxer could not take."""

    def __init__(
        self, time_base: Fraction, frame_rate: Fraction | None, faults: SourceFaults
    ) -> None:
        self._usual_duration = max(1, round(1 / (frame_rate * time_base))) if frame_rate else 1
        self._faults = faults
        self._time_base = time_base
        self._offset = 0
        self._last_pts: int | None = None
        self._last_duration = self._usual_duration

    def place(self, image: av.VideoFrame) -> tuple[int, int]:
        """The frame's pts and duration in ticks; pts always grow."""
        pts = image.pts if image.pts is not None else image.dts
        if pts is not None and self._last_pts is not None:
            pts += self._offset
            too_far = pts - self._last_pts > MOST_TICKS
            if too_far or (self._last_pts - pts) * self._time_base > _JUMP_SECONDS:
                # A recording that another was joined to: it goes on where that one ended.
                self._offset += self._last_pts + self._last_duration - pts
                pts = self._last_pts + self._last_duration
                self._faults.repaired_timestamps += too_far
        if self._last_pts is None:
            repaired = pts is None
            pts = pts if pts is not None else 0
        else:
            repaired = pts is None or pts <= self._last_pts
            if pts is None:
                pts = self._last_pts + self._last_duration
            elif repaired:
                pts = self._last_pts + 1
        self._faults.repaired_timestamps += repaired
        fits = 0 < image.duration <= MOST_TICKS
        self._last_pts = pts
        self._last_duration = image.duration if fits else self._usual_duration
        return pts, self._last_duration
