"""What a file is that FFmpeg does not open, told from how it begins, and what to do about it."""

from __future__ import annotations

import re
from pathlib import Path

import av

from pipeline.media.headers import lacks_mp4_index

_LISTS = (
    (rb"#EXTM3U", "a playlist (M3U, HLS)"),
    (rb"ffconcat version", "a list of files for FFmpeg (ffconcat)"),
    (rb"\[playlist\]", "a playlist (PLS)"),
    (rb"<(?:\w+:)?MPD\b", "a playlist (DASH)"),
    (rb"<SmoothStreamingMedia\b", "a playlist (Smooth Streaming)"),
    (rb"<asx\b", "a playlist (ASX)"),
    (rb"<smil\b", "a playlist (SMIL)"),
    (rb"<playlist\b", "a playlist (XSPF)"),
    (rb"<CompositionPlaylist\b", "a playlist (IMF)"),
    (rb"\[Reference\]", "a list of addresses"),
    (rb"(?:rtsp|rtmp|mms|https?)://", "a list of addresses"),
    (rb"v=0\r?\no=", "a description of a live stream (SDP)"),
)
"""What the files begin with that name others: after blanks, and a declaration in XML."""
_OTHER_FILES = (
    (rb"PK\x03\x04|Rar!|7z\xbc\xaf|\x1f\x8b|\xfd7zXZ|BZh\d", "an archive: unpack it first"),
    (rb"%PDF-", "a PDF document"),
    (rb"\x7fELF|MZ", "a program"),
    (rb"<!doctype html|<html", "a web page, perhaps saved in place of a clip: download it again"),
    (rb"version https://git-lfs", "a Git LFS pointer: fetch the file itself with git lfs pull"),
)
_BEGINNING = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?", re.DOTALL)
_BEGINNING_BYTES = 4096


def why_unreadable(path: Path, error: av.FFmpegError) -> str:
    """What is wrong with a file that FFmpeg refused with this error, and what to do."""
    try:
        with path.open("rb") as file:
            content = file.read(_BEGINNING_BYTES)
        if not content:
            return "it is empty"
        blank = _BEGINNING.match(content)
        assert blank is not None
        if what := _first_match(_LISTS, content, blank.end()):
            return (
                f"it is {what}, which holds no media but names other files or addresses, and "
                "those are never opened: give the clips it names"
            )
        if what := _first_match(_OTHER_FILES, content, blank.end()):
            return f"it is {what}"
        if lacks_mp4_index(path):
            return (
                "it is an MP4 without its index (moov), as of a recording that was cut off: a "
                "repair tool such as untrunc can rebuild it from an intact clip of that camera"
            )
    except OSError as unreadable:
        return unreadable.strerror or type(unreadable).__name__
    if isinstance(error, (av.InvalidDataError, av.ArgumentError, av.EOFError)):
        return "it is damaged, or its format is not supported; MP4, MKV, AVI, TS and others are"
    return error.strerror or type(error).__name__


def _first_match(kinds: tuple[tuple[bytes, str], ...], content: bytes, offset: int) -> str | None:
    for beginning, what in kinds:
        if re.compile(beginning, re.IGNORECASE).match(content, offset):
            return what
    return None
