"""The annotated file of a segment: a video track, a picture, or none, written and read back."""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path
from typing import Protocol

import av

from pipeline.core.boxes import Detections
from pipeline.core.config import EncodeOptions
from pipeline.core.position import Position, Step
from pipeline.frames.encode import VideoEncoder, require_decodable
from pipeline.frames.scaled import annotated_info
from pipeline.frames.task import SegmentTask
from pipeline.media.frame import VideoInfo
from pipeline.media.mux import verify
from pipeline.media.still import PictureEncoder, Streamless, verify_picture


class FrameEncoder(Protocol):
    """Writes rendered frames to a file; for one thread at a time.

    worker_threads: the kernel's ids of the threads that it started. num_frames: taken so far.
    """

    @property
    def worker_threads(self) -> frozenset[int]: ...

    @property
    def num_frames(self) -> int: ...

    def encode(self, image: av.VideoFrame, pts: int, duration: int, time_base: Fraction) -> None:
        """Take the next frame. Raises EncodeError."""

    def some_times(self) -> list[tuple[int, int]]:
        """(number, pts) of some frames taken, in order; empty where there are no times."""
        ...

    def flush(self) -> None:
        """Write what is held back; no frame may follow. Raises EncodeError."""

    def close(self) -> None:
        """Finish the file. Raises EncodeError."""

    def abandon(self) -> None:
        """Let go of the file, finished or not."""


class NoEncoder(Streamless):
    """Takes frames and writes no file."""

    def encode(self, image: av.VideoFrame, pts: int, duration: int, time_base: Fraction) -> None:
        self.num_frames += 1


def undrawn(image: av.VideoFrame, detections: Detections) -> av.VideoFrame:
    """The image as it was decoded: the renderer of a run without an annotated file."""
    return image


def open_encoder(
    path: Path, info: VideoInfo, options: EncodeOptions, num_threads: int
) -> FrameEncoder:
    """The encoder of the annotated file of a source. Raises EncodeError."""
    info = annotated_info(info, options)
    if info.is_picture:
        return PictureEncoder(path, info)
    return VideoEncoder(path, info, options, num_threads=num_threads)


def verify_annotated(
    task: SegmentTask,
    info: VideoInfo,
    encoder: FrameEncoder,
    end_seconds: float,
    position: Position,
) -> None:
    """Read the finished annotated file of a segment back and check it; without frames, remove it.

    end_seconds: where its last frame ends. Raises EncodeError.
    """
    path, options = task.files.annotated, task.settings.config.encode
    if not encoder.num_frames or not task.settings.config.video:
        path.unlink(missing_ok=True)
        return
    if info.is_picture:
        verify_picture(path, annotated_info(info, options))
        return
    beat = functools.partial(position.encoding.enter, Step.JOIN)
    times = {index: pts * info.time_base for index, pts in encoder.some_times()}
    verify(path, encoder.num_frames, end_seconds, times, beat)
    require_decodable(path, options, encoder.num_frames, beat)
