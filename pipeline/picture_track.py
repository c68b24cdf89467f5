"""Which of a file's video streams is the clip: not a cover, not the alpha of another one."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from pipeline.errors import InputError
from pipeline.headers import UNKNOWN, TrackHeader, read_track_headers

_TILE = 0x80000
"""AV_DISPOSITION_DEPENDENT, for which PyAV has no name: a part of a picture of another stream."""
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
            f"{path}: its video is encrypted: decrypt it first, with the key of who made it"
        )
    if stream.codec_context is None:
        raise InputError(f"{path}: FFmpeg has no decoder for its video stream")
    return stream, header


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
