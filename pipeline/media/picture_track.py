"""Which of a file's video streams is the clip: not a cover, not the alpha of another one."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path
from typing import cast

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from pipeline.core.config import LimitOptions
from pipeline.core.errors import InputError
from pipeline.media.container import open_input
from pipeline.media.headers import UNKNOWN, TrackHeader, read_track_headers

_TILE = 0x80000
"""AV_DISPOSITION_DEPENDENT, for which PyAV has no name: a part of a picture of another stream."""
_LOOK_SECONDS, _MOST_KEY_FRAMES = 2, 16
_NO_CLIP = Disposition.attached_pic | Disposition.timed_thumbnails | _TILE


def picture_track(path: Path, container: InputContainer) -> tuple[VideoStream, TrackHeader]:
    """The video stream that is taken for the clip, and what the file's header says of it.

    Raises InputError if there is none that can be decoded.
    """
    videos = list(container.streams.video)
    if not videos:
        raise InputError(f"{path}: has no video stream")
    headers = read_track_headers(path, container)
    clips = [s for s in videos if _may_be_clip(s, headers.get(s.index, UNKNOWN))]
    if not clips:
        raise InputError(f"{path}: {_what_it_has(videos)}")
    best = cast("VideoStream | None", container.streams.best("video"))
    stream = best if best in clips else max(clips, key=_rank)
    header = headers.get(stream.index, UNKNOWN)
    if header.encrypted:
        raise InputError(
            f"{path}: its video is encrypted: decrypt it first, with the key of its maker"
        )
    if stream.codec_context is None:
        raise InputError(f"{path}: FFmpeg has no decoder for its video stream")
    return stream, header


def largest_key_frame_wh(path: Path, limits: LimitOptions) -> tuple[int, int]:
    """The size of the largest key frame in a clip's first two seconds; (0, 0) if there is none.

    Of streams that carry the size of their pictures along, and change it as they please.
    """
    largest = (0, 0)
    with contextlib.suppress(av.FFmpegError), open_input(path, limits) as container:
        stream, _ = picture_track(path, container)
        stream.codec_context.skip_frame = "NONKEY"
        start: float | None = None
        for image in itertools.islice(container.decode(stream), _MOST_KEY_FRAMES):
            start = image.time if start is None else start
            if start is not None and (image.time or start) > start + _LOOK_SECONDS:
                break
            largest = max(largest, (image.width, image.height), key=lambda wh: wh[0] * wh[1])
    return largest


def _may_be_clip(stream: VideoStream, header: TrackHeader) -> bool:
    return not (int(stream.disposition) & _NO_CLIP or header.auxiliary)


def _rank(stream: VideoStream) -> tuple[bool, int]:
    """Where FFmpeg's own choice is none: what moves, then what is largest."""
    return stream.frames > 1, stream.width * stream.height


def _what_it_has(videos: list[VideoStream]) -> str:
    if any(int(stream.disposition) & _TILE for stream in videos):
        return (
            "holds a picture in tiles (HEIF), which are not put together here: convert it to "
            "JPEG or PNG first"
        )
    return "has no video stream, only a cover picture"
