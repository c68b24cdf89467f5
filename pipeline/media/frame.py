"""What travels down the pipeline: a frame, and the facts of the clip it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import av
import numpy as np
from av.video.plane import VideoPlane
from numpy.typing import NDArray

from pipeline.media.carried import Carried
from pipeline.media.headers import Crop
from pipeline.media.timeline import Timeline

PROGRESSIVE, TOP_FIELD_FIRST, BOTTOM_FIELD_FIRST = 1, 2, 3
"""FFmpeg's numbers of field orders."""


@dataclass(frozen=True, slots=True)
class Frame:
    """One decoded picture, upright, with its place on the result's timeline.

    index: 0 for the first frame in presentation order.
    pts, duration: in units of time_base (seconds per tick).
    image: the decoded planes in the source's own pixel format.
    source_pts: ticks as they stand in the file; None where it has none.
    window: the part of the image that the model sees; None for all of it.
    """

    index: int
    pts: int
    duration: int
    time_base: Fraction
    image: av.VideoFrame
    source_pts: int | None = None
    window: av.VideoFrame | None = None

    @property
    def seen(self) -> av.VideoFrame:
        """What the model sees of it."""
        return self.image if self.window is None else self.window

    @property
    def pts_seconds(self) -> float:
        return float(self.pts * self.time_base)


@dataclass(frozen=True, slots=True)
class Segment:
    """The frames of a clip with start_pts <= pts < end_pts, in ticks of the result.

    number: 0 for the first. start_pts, end_pts: None where the clip begins and ends.
    seek_pts: a key frame before start_pts at which to begin decoding, so that everything the
        segment refers to has been seen, in ticks of the file; None if one has to begin with the
        clip.
    """

    number: int = 0
    start_pts: int | None = None
    end_pts: int | None = None
    seek_pts: int | None = None


WHOLE = Segment()
"""All frames of a clip."""


@dataclass(frozen=True, slots=True)
class ColorTags:
    """The numbers of ISO/IEC 23091-2 that say how planes become light; 2 is "unspecified".

    range is FFmpeg's: 0 unspecified, 1 limited (16 to 235), 2 full (0 to 255).
    """

    range: int = 0
    primaries: int = 2
    trc: int = 2
    space: int = 2


@dataclass(frozen=True, slots=True)
class HdrMetadata:
    """Static HDR10 metadata, in the units of its standards.

    mastering: x and y of red, green, blue and white in 1/50,000, then the most and the least
        luminance in 1/10,000 cd/m2; None without.
    light_level: the most light of a pixel and of the mean of a frame, in cd/m2; None without.
    """

    mastering: tuple[int, ...] | None
    light_level: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The facts of a clip, as displayed (after rotation).

    rotation_degrees: counter-clockwise turn that the source asked for and that was applied.
    crop: sides of the coded picture that the source asks to cut off; applied too.
    field_order: FFmpeg's number of the order in which the fields of a picture are shown.
    has_captions: whether its first picture brings closed captions (ATSC A53) along.
    hdr: the metadata that its first picture brings along.
    is_picture: whether it is a still picture rather than a clip, and gives a picture.
    warnings: what the source asks for and is not done, a line each.
    time_base: of the result, in which start_pts, of the first frame, is counted.
    frame_rate: what the times of the frames support.
    num_frames_header: what the container claims; None where it claims nothing.
    color: of the planes of the result.
    num_frames_scanned: of which there are packets; None where none were read.
    creation_time: when the recording of the first frame began, as the file says, in ISO 8601.
    source_time_base: of time stamps as they stand in the file. offset_seconds: the time there
        that is 0 in the result.
    """

    name: str
    container: str
    codec: str
    size_wh: tuple[int, int]
    pix_fmt: str
    time_base: Fraction
    frame_rate: Fraction | None
    sample_aspect_ratio: Fraction | None
    color: ColorTags
    rotation_degrees: int
    duration_seconds: float | None
    num_frames_header: int | None
    bit_rate: int | None
    num_audio_streams: int
    num_subtitle_streams: int
    start_pts: int = 0
    crop: Crop | None = None
    field_order: int = PROGRESSIVE
    warnings: tuple[str, ...] = ()
    num_frames_scanned: int | None = None
    source_time_base: Fraction | None = None
    offset_seconds: float = 0.0
    has_captions: bool = False
    hdr: HdrMetadata | None = None
    is_picture: bool = False
    creation_time: str | None = None

    @property
    def annotated_suffix(self) -> str:
        """Of the annotated file: MP4 for a clip, JPEG for JPEG, PNG for every other picture."""
        if not self.is_picture:
            return ".mp4"
        return ".jpg" if self.codec == "mjpeg" else ".png"

    @property
    def num_frames_expected(self) -> int | None:
        """By the packets that were read, else what the container claims."""
        return (
            self.num_frames_header if self.num_frames_scanned is None else self.num_frames_scanned
        )

    @property
    def frame_bytes(self) -> int:
        """What one decoded frame takes in memory."""
        bits_per_pixel = av.VideoFormat(self.pix_fmt).padded_bits_per_pixel
        return self.size_wh[0] * self.size_wh[1] * bits_per_pixel // 8


@dataclass(slots=True)
class SourceFaults:
    """What had to be mended or skipped while reading, so that the report can say it."""

    broken_packets: int = 0
    corrupt_frames: int = 0
    repaired_timestamps: int = 0
    resized_frames: int = 0
    first_error: str | None = None

    def note_broken_packet(self, reason: str) -> None:
        self.broken_packets += 1
        self.first_error = self.first_error or reason

    def since(self, before: SourceFaults) -> SourceFaults:
        """What came on top of an earlier state of the same counts."""
        return SourceFaults(
            **{name: getattr(self, name) - getattr(before, name) for name in _COUNTS},
            first_error=None if before.first_error else self.first_error,
        )

    def add(self, other: SourceFaults) -> None:
        """Count another part of the same clip in."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.first_error = self.first_error or other.first_error


_COUNTS = ("broken_packets", "corrupt_frames", "repaired_timestamps", "resized_frames")


class FrameSource(Protocol):
    """Where frames come from: a clip, or a synthetic scene."""

    @property
    def info(self) -> VideoInfo: ...

    @property
    def faults(self) -> SourceFaults: ...

    @property
    def timeline(self) -> Timeline | None:
        """How the times of a file become those of the result; None without a file."""

    @property
    def worker_threads(self) -> frozenset[int]:
        """The kernel's ids of the threads that help to make frames."""

    def frames(self, segment: Segment = WHOLE) -> Iterator[Frame]:
        """Its frames, counted from 0. Segments are taken one at a time, each to its end."""

    def sample(self, count: int) -> Iterator[Frame]:
        """At most `count` frames, spread over all; instead of taking segments."""

    def streams_left_out(self, carried: Carried) -> list[str]:
        """What of its file, beside the frames, an MP4 file will not have as it was, a line each."""
        ...

    def close(self) -> None: ...


def plane_samples(plane: VideoPlane, bits: int) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The samples of a plane, as a writable view (height, width) without the padding of rows.

    bits: of a sample.
    """
    rows = plane_rows(plane)
    return (rows if bits <= 8 else rows.view(np.uint16))[:, : plane.width]


def plane_rows(plane: VideoPlane) -> NDArray[np.uint8]:
    """The bytes of a plane, as a writable view (height, line_size) that keeps it alive.

    Rows end in padding. Only frames that are not shared may be written to.
    """
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)  # type: ignore[call-overload,no-any-return]
