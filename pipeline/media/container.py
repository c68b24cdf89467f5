"""A path -> an open container, within the limits; what is no clip is refused before it harms."""

from __future__ import annotations

import functools
import re
import stat
from fractions import Fraction
from numbers import Rational
from pathlib import Path
from typing import Any, cast

import av
from av.container import InputContainer

from pipeline.core.config import DEFAULT_LIMITS, LimitOptions
from pipeline.core.errors import InputError
from pipeline.core.picture_paths import PICTURE_SUFFIXES
from pipeline.core.text import counted
from pipeline.media.demuxers import ALLOWED_DEMUXERS
from pipeline.media.file_kind import why_unreadable

_NO_DECODERS = {"codec_whitelist": "none"}
"""To look into a file, FFmpeg decodes its first frames: the larger part of what opening costs."""
_OPEN_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": ",".join(sorted(ALLOWED_DEMUXERS)),
}
_PROTOCOL = re.compile(r"[A-Za-z][A-Za-z0-9+.,-]+:")
_OTHER_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)
_LARGEST_BLOCK_PX = 128
# PyAV 19 never fails on metadata that is no UTF-8, and no longer has the argument.
LENIENT: dict[str, Any] = (
    {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}
)


def require_regular_file(path: Path) -> None:
    """Refuse what is no file that can be read again and again. Raises InputError.

    To be asked before anything opens it: a FIFO would wait for its writer for ever.
    """
    try:
        kind = path.stat().st_mode
    except OSError as error:
        if _PROTOCOL.match(str(path)):
            raise InputError(
                f"{path}: only files are read; addresses and protocols of FFmpeg are refused"
            ) from error
        missing = isinstance(error, FileNotFoundError)
        raise InputError(f"{path}: {'no such file' if missing else error.strerror}") from error
    except ValueError as error:  # A zero byte in the name.
        raise InputError(f"{path}: no such file") from error
    if not stat.S_ISREG(kind):
        what = next((name for test, name in _OTHER_KINDS if test(kind)), "something else")
        raise InputError(f"{path}: not a regular file but {what}")


def open_input(path: Path, limits: LimitOptions = DEFAULT_LIMITS) -> InputContainer:
    """Open a media file that stands for itself alone, within the limits. Raises InputError.

    FFmpeg may decode frames to find out what the header does not say.
    """
    return _open_within(path, limits, header_is_enough=False)


def open_header(path: Path, limits: LimitOptions = DEFAULT_LIMITS) -> InputContainer:
    """Open a media file for its packets and what its header says, as `open_input`.

    An MP4 file with one stream is opened without decoders: its header says enough.
    """
    return _open_within(path, limits, header_is_enough=True)


def open_written(path: Path) -> InputContainer:
    """Open an MP4 file that was written here, without decoders. Raises FFmpegError."""
    return av.open(f"file:{path}", options=_NO_DECODERS)


def _open_within(path: Path, limits: LimitOptions, *, header_is_enough: bool) -> InputContainer:
    require_regular_file(path)
    options = _options(limits)
    try:
        found = path.stat()
        says_enough = _probe(path, (found.st_ino, found.st_size, found.st_mtime_ns), limits)
        if says_enough and header_is_enough:
            options |= _NO_DECODERS
        container = _open(path, options)
    except av.FFmpegError as error:
        raise InputError(
            f"{path}: not a video that can be read: {why_unreadable(path, error)}"
        ) from error
    try:
        _check_container(path, container, limits)
    except InputError:
        container.close()
        raise
    return container


@functools.lru_cache(maxsize=16)
def _probe(path: Path, stamp: tuple[int, ...], limits: LimitOptions) -> bool:
    """Check a file without decoders, once for as long as it is the same: it is opened repeatedly.

    Where the header names no streams, the decoders that FFmpeg looks into the file with know no
    limit. Returns whether it is an MP4 file with one stream. Raises InputError, FFmpegError.
    """
    del stamp
    with _open(path, _options(limits) | _NO_DECODERS) as container:
        _check_container(path, container, limits)
        return "mp4" in container.format.name.split(",") and len(container.streams) == 1


def _options(limits: LimitOptions) -> dict[str, str]:
    return {**_OPEN_OPTIONS, "max_pixels": str(max_pixels(limits))}


def _open(path: Path, options: dict[str, str]) -> InputContainer:
    try:
        return cast("InputContainer", av.open(f"file:{path}", options=options, **LENIENT))
    except av.ArgumentError:
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            raise
        # FFmpeg trusts the name of a picture more than its content, and takes it for one of a
        # sequence, which is refused: under this name it looks at the content alone.
        with path.open("rb") as file:
            nameless = f"file:/dev/fd/{file.fileno()}"
            return cast("InputContainer", av.open(nameless, options=options, **LENIENT))


def _check_container(path: Path, container: InputContainer, limits: LimitOptions) -> None:
    if not ALLOWED_DEMUXERS.issuperset(container.format.name.split(",")):
        raise InputError(f"{path}: {container.format.name} is not a supported format")
    if len(container.streams) > limits.max_streams:
        raise InputError(
            f"{path}: has {counted(len(container.streams), 'stream')}, more than --max-streams "
            f"{limits.max_streams}"
        )
    for stream in container.streams.video:
        if stream.codec_context is not None:
            check_size(path, (stream.codec_context.width, stream.codec_context.height), limits)


def check_size(path: Path, size_wh: tuple[int, int], limits: LimitOptions) -> None:
    """Raise InputError for frames larger than allowed, either way round."""
    width, height = size_wh
    max_width, max_height = limits.max_size_wh
    if max(size_wh) > max(limits.max_size_wh) or width * height > max_width * max_height:
        raise InputError(
            f"{path}: its frames are {width}x{height}, larger than --max-input-size "
            f"{max_width}x{max_height}"
        )


def check_frame_rate(path: Path, frame_rate: Fraction | None, limits: LimitOptions) -> None:
    """Raise InputError for a rate beyond the limit; None claims nothing."""
    if frame_rate and frame_rate > limits.max_frame_rate:
        raise InputError(
            f"{path}: claims {float(frame_rate):.0f} frames per second, more than "
            f"--max-frame-rate {float(limits.max_frame_rate):g}"
        )


def exact(value: Rational | None) -> Fraction | None:
    """A ratio of PyAV as a Fraction; None for one that is not set.

    From PyAV 19 on they are of a type of its own, which rounds to 32 bits when two of them are
    multiplied, and JSON does not take.
    """
    return Fraction(value) if value else None


def max_pixels(limits: LimitOptions) -> int:
    """For FFmpeg, whose decoders round sides up to whole blocks."""
    width, height = limits.max_size_wh
    return (width + _LARGEST_BLOCK_PX) * (height + _LARGEST_BLOCK_PX)
