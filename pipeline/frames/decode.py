"""A file -> its frames: every one, upright, in presentation order, on the source's timeline."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import av
from av.video.reformatter import VideoReformatter

from pipeline.core.config import DEFAULT_LIMITS, LimitOptions
from pipeline.core.errors import InputError
from pipeline.frames.decoder import ClipDecoder
from pipeline.media.carried import Carried
from pipeline.media.color import color_warnings, make_convertible, tags_of_planes
from pipeline.media.container import check_frame_rate, check_size
from pipeline.media.frame import WHOLE, Frame, Segment, SourceFaults, VideoInfo
from pipeline.media.geometry import Display, geometry_of, side_data_of
from pipeline.media.hdr import hdr_metadata
from pipeline.media.metadata import creation_time
from pipeline.media.picture_track import largest_key_frame_wh
from pipeline.media.scan import scan_clip
from pipeline.media.side_data import has_captions, side_data_warnings
from pipeline.media.still import is_picture
from pipeline.media.streams import stream_warnings
from pipeline.media.timeline import FrameTimes, Timeline

MOST_SAMPLED_PIXELS = 1_600_000_000
"""About 190 frames of 3840x2160, or two and a half minutes of 768x432."""

LEAST_STEP = 12
"""Frames from one that is sampled to the next, at the least, behind one key frame."""


class VideoReader:
    """The frames of a clip's best video stream; a FrameSource.

    timeline: of the clip, where it is known; else the packets are read for it first. Raises
    InputError if the file cannot be opened, exceeds a limit, or not one frame of it can be
    decoded. What is broken further in is skipped and counted in `faults`.
    """

    def __init__(
        self,
        path: Path,
        limits: LimitOptions = DEFAULT_LIMITS,
        *,
        num_threads: int = 1,
        timeline: Timeline | None = None,
        deinterlace: bool = False,
    ) -> None:
        self.timeline = timeline or scan_clip(path, limits).timeline
        self._path = path
        self._decoder = ClipDecoder(path, limits, num_threads, self.timeline)
        self._ahead: _Placed | None = None
        self._begin()
        self._reached_pts: int | None = None
        self._at_beginning = True
        try:
            self._ahead = self._next_placed()
            if self._ahead is None:
                reason = self.faults.first_error or "no frame in its video stream"
                if reason == os.strerror(errno.EINVAL):
                    # All that FFmpeg says of a frame that is too large for max_pixels.
                    reason += "; frames larger than --max-input-size are not decoded"
                raise InputError(f"{path}: cannot decode any frame ({reason})")
            first = self._ahead.image
            self._decoded_wh = self._size_to_show(path, limits, first)
            self.geometry = geometry_of(
                first, self._decoded_wh, self._decoder.header.crop, deinterlace=deinterlace
            )
            self.info = self._describe(path, first)
            check_size(path, self.info.size_wh, limits)
            check_frame_rate(path, self.info.frame_rate, limits)
        except BaseException:
            self.close()
            raise

    @property
    def faults(self) -> SourceFaults:
        return self._decoder.faults

    @property
    def worker_threads(self) -> frozenset[int]:
        """Ids of the decoder's threads."""
        return self._decoder.worker_threads

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def frames(self, segment: Segment = WHOLE) -> Iterator[Frame]:
        """The frames of a segment, counted from 0.

        The one that follows the last segment taken to its end is simply read on to; for another
        one, the clip is searched here, and what that mends or skips is counted before it returns.
        """
        start_pts, end_pts, seek_pts = segment.start_pts, segment.end_pts, segment.seek_pts
        if (stretch := self.timeline.stretch) is not None:
            if start_pts is None:
                start_pts, seek_pts = stretch.start_pts, stretch.seek_pts
            end_pts = stretch.end_pts if end_pts is None else end_pts
        if start_pts is None:
            if not self._at_beginning:
                self._reopen()
        elif self._reached_pts != start_pts:
            self._search(start_pts, seek_pts)
        self._at_beginning, self._reached_pts = False, None
        return self._frames_to(end_pts)

    def _frames_to(self, end_pts: int | None) -> Iterator[Frame]:
        display = Display(self.geometry)
        for index, (place, image) in enumerate(display(self._placed_to(end_pts))):
            yield Frame(
                index,
                place.pts,
                place.duration,
                self.timeline.time_base,
                image,
                place.source_pts,
            )

    def _placed_to(self, end_pts: int | None) -> Iterator[tuple[_Place, av.VideoFrame]]:
        """The pictures of a stretch as they are decoded, all of one size."""
        resize = VideoReformatter()
        duration, placed = self.timeline.usual_ticks, self._next_placed()
        while True:
            if placed is None or (end_pts is not None and placed.pts >= end_pts):
                self._ahead = placed
                self._reached_pts = end_pts
                return
            # It lasts until the next one, which is decoded for that.
            following = self._next_placed()
            duration = self._duration(placed, following, duration)
            image = placed.image
            make_convertible(image)
            if image.is_corrupt:
                self._decoder.count_corrupt()
            if (image.width, image.height) != self._decoded_wh:
                self.faults.resized_frames += 1
                image = resize.reformat(image, *self._decoded_wh, threads=1)
            closed_pts = placed.closed_pts
            source_pts = None if closed_pts is None else self.timeline.source_pts(closed_pts)
            yield _Place(placed.pts, duration, source_pts), image
            placed = following

    def _duration(self, placed: _Placed, following: _Placed | None, before: int) -> int:
        """How long a frame is shown: at the clip's end as the file says, else as the one before.

        Where the frames behind it are damaged, the one before may have lasted over a gap.
        """
        timeline = self.timeline
        if following is not None:
            return following.pts - placed.pts
        if timeline.end is not None and placed.closed_pts == timeline.last_pts:
            return max(1, timeline.end - placed.pts)
        return min(before, timeline.usual_ticks)

    def _search(self, start_pts: int, seek_pts: int | None) -> None:
        """Read up to the first frame that is not before start_pts; what is read is let go."""
        self._ahead = None
        if seek_pts is not None:
            with contextlib.suppress(av.FFmpegError):  # SWF cannot be sought in.
                self._decoder.seek(seek_pts)
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
        timed = self._decoder.next_image()
        if timed is None:
            return None
        pts, image = timed
        place, mended = self._times.place(pts)
        self.faults.repaired_timestamps += mended
        return _Placed(place, pts, image)

    def _reopen(self) -> None:
        self._decoder.reopen()
        self._at_beginning, self._reached_pts = True, None
        self._begin()

    def _begin(self) -> None:
        """Place images anew, from where the decoder is."""
        self._times = FrameTimes(self.timeline)
        self._ahead = None

    def close(self) -> None:
        """Let go of the file; not while another thread is inside the decoder and hangs there."""
        self._decoder.close()

    def streams_left_out(self, carried: Carried) -> list[str]:
        """What of the clip an MP4 file will not have as it was, a line each."""
        decoder, left_out = self._decoder, self.timeline.left_out
        lost = stream_warnings(self._path, decoder.container, decoder.stream, left_out, carried)
        if self.info.has_captions and not carried.others:
            lost.append("closed captions in the video were left out, with --redact none are kept")
        return lost

    def sample(self, count: int, *, most_pixels: int = MOST_SAMPLED_PIXELS) -> Iterator[Frame]:
        """At most `count` frames, spread over the clip; instead of iterating over all.

        They are key frames, which can be had without those between them, if there are enough. Else
        all of the clip is decoded or, if that is more than most_pixels and LEAST_STEP frames for
        each, some of the frames behind each key frame; fewer where key frames lie close together.
        """
        timeline, seconds = self.timeline, self.info.duration_seconds
        width, height = self.info.size_wh
        most = max(LEAST_STEP * count, most_pixels // (width * height))
        places, each = count, 1
        if 2 * timeline.num_key_frames < count:
            places = max(1, timeline.num_key_frames)
            each = -(-count // places)
        if not seconds or timeline.num_frames <= (count if each == 1 else most):
            step = max(1, -(-timeline.num_frames // count))
            wanted = -(-timeline.num_frames // step)
            yield from itertools.islice((f for f in self if f.index % step == 0), wanted)
            return
        step, seen = most // count, set[int]()
        for part in range(places):
            place = timeline.start + int((part + 0.5) / places * seconds / timeline.time_base)
            self._decoder.seek(timeline.source_pts(timeline.closed(place)))
            self._begin()
            timed = iter(self._decoder.next_image, None)
            for pts, image in itertools.islice(timed, 0, (each - 1) * step + 1, step):
                if pts in seen or len(seen) == count:  # Another place led to the same key frame.
                    break
                if pts is None:
                    continue
                seen.add(pts)
                make_convertible(image)
                for _, shown in Display(self.geometry)([(None, image)]):
                    yield Frame(len(seen) - 1, pts, 1, timeline.video.time_base, shown)

    def _describe(self, path: Path, image: av.VideoFrame) -> VideoInfo:
        stream, container = self._decoder.stream, self._decoder.container
        aspect = self._decoder.sample_aspect_ratio
        if self.geometry.turned and aspect:
            aspect = 1 / aspect
        num_packets = None if self.timeline.stretch else self.timeline.num_frames
        still = is_picture(container, num_packets)
        return VideoInfo(
            name=path.name.encode("utf-8", "replace").decode("utf-8"),
            container=container.format.name,
            codec=stream.codec_context.name,
            size_wh=self.geometry.size_wh,
            pix_fmt=image.format.name,
            time_base=self.timeline.time_base,
            frame_rate=None if still else self.timeline.frame_rate,
            sample_aspect_ratio=aspect,
            color=tags_of_planes(image),
            rotation_degrees=self.geometry.rotation_degrees,
            duration_seconds=None if still else self._duration_seconds(),
            num_frames_header=1 if still else stream.frames or None,
            bit_rate=stream.bit_rate or container.bit_rate or None,
            num_audio_streams=len(container.streams.audio),
            num_subtitle_streams=len(container.streams.subtitles),
            start_pts=self.timeline.start,
            num_frames_scanned=self.timeline.num_frames,
            source_time_base=self.timeline.video.time_base,
            offset_seconds=float(self.timeline.offset_seconds),
            crop=self._decoder.header.crop,
            field_order=self.geometry.field_order,
            has_captions=has_captions(image),
            hdr=hdr_metadata(side_data_of(image)),
            is_picture=still,
            creation_time=None if still else creation_time(container, stream, self.timeline),
            warnings=(
                *self.geometry.warnings,
                *side_data_warnings(image),
                *color_warnings(image, needs_dolby_vision=self._decoder.header.needs_dolby_vision),
            ),
        )

    def _size_to_show(
        self, path: Path, limits: LimitOptions, first: av.VideoFrame
    ) -> tuple[int, int]:
        """Of all pictures: that of the first, unless it is known that larger ones follow."""
        size_wh = (first.width, first.height)
        declared = self._decoder.header.size_wh
        if declared is None:
            declared = largest_key_frame_wh(path, limits)
        grows = declared[0] > size_wh[0] and declared[1] > size_wh[1]
        return declared if grows else size_wh

    def _duration_seconds(self) -> float | None:
        """How long the picture lasts; what the file claims where it was not read to its end."""
        timeline, stream = self.timeline, self._decoder.stream
        if timeline.end is not None:
            return float((timeline.end - timeline.start) * timeline.time_base)
        if not timeline.has_times:
            return float(timeline.num_frames * timeline.usual_ticks * timeline.time_base)
        if stream.duration is not None:
            return float(stream.duration * timeline.video.time_base)
        duration = self._decoder.container.duration
        return duration / av.time_base if duration else None


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a picture is in the result, and its time stamp as it stands in the file, in ticks."""

    pts: int
    duration: int
    source_pts: int | None


@dataclass(frozen=True, slots=True)
class _Placed:
    """An image with its place in ticks of the result, and of the file with joins closed."""

    pts: int
    closed_pts: int | None
    image: av.VideoFrame
