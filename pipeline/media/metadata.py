"""Title, chapters, timecode and other tags of the source -> those of an MP4 file."""

from __future__ import annotations

import contextlib
import functools
import io
import re
from datetime import datetime, timedelta, timezone
from fractions import Fraction
from typing import Any

import av
from av.container import InputContainer, OutputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from pipeline.media.container import LENIENT, exact
from pipeline.media.timeline import Timeline

_OF_FILES = {
    *(
        "encoder",
        "software",
        "major_brand",
        "minor_version",
        "compatible_brands",
        "duration",
        "vendor_id",
    ),
    *("handler_name", "language", "timecode", "filename", "mimetype"),
}
"""What says something of the file or the track itself, which the result is another one of."""
_OF_VIDEO = ("language", "title", "handler_name", "creation_time")


def carry_metadata(
    source: InputContainer,
    annotated: VideoStream,
    out: OutputContainer,
    video: VideoStream,
    end_seconds: float | None,
    timeline: Timeline | None = None,
) -> None:
    """Give a file the tags and chapters of the source, and its video those of the source's.

    end_seconds: where to cut chapters off; None takes all. timeline: how the times of the source
    become those of the file; None keeps them.
    """
    offset_seconds = timeline.offset_seconds if timeline else Fraction(0)
    out.metadata.update(_tags(source, annotated))
    video.metadata.update(
        {key: annotated.metadata[key] for key in _OF_VIDEO if key in annotated.metadata}
    )
    chapters = _chapters(source, end_seconds, offset_seconds)
    out.set_chapters(chapters)
    timecode = _timecode(source, annotated)
    if timeline is not None and timeline.stretch is not None and timeline.stretch.first_index:
        timecode = None  # It is that of the first frame of the source.
    if timecode is not None and not chapters and _mp4_takes_timecode(timecode, annotated):
        video.metadata["timecode"] = timecode
        video.codec_context.framerate = annotated.average_rate or Fraction(0)


def metadata_warnings(source: InputContainer, annotated: VideoStream) -> list[str]:
    """What of the tags an MP4 file has no place for, a line each."""
    warnings = []
    tags = _tags(source, annotated)
    kept = _kept_by_mp4(tuple(tags.items()))
    if lost := sorted(key for key in tags if key.lower() not in kept):
        warnings.append(f"MP4 has no place for metadata, left out: {', '.join(lost)}")
    timecode = _timecode(source, annotated)
    if timecode is not None and _chapters(source, None):
        # FFmpeg lets the video refer to one of the two tracks only.
        warnings.append(f"timecode {timecode} was left out: the file has chapters in its place")
    elif timecode is not None and not _mp4_takes_timecode(timecode, annotated):
        warnings.append(f"timecode {timecode} was left out: it does not fit the frame rate")
    return warnings


def metadata_left_out(source: InputContainer, annotated: VideoStream) -> list[str]:
    """What of the tags and chapters a file without any of them does not have, in one line."""
    names = sorted(_tags(source, annotated))
    names += ["chapters"] if source.chapters() else []
    names += ["timecode"] if _timecode(source, annotated) is not None else []
    if not names:
        return []
    return [f"metadata was left out, with --redact none is kept: {', '.join(names)}"]


def creation_time(source: InputContainer, video: VideoStream, timeline: Timeline) -> str | None:
    """When the recording of the first frame of a timeline began, as the file says.

    In ISO 8601 with the offset from UTC; None if it does not say.
    """
    before = float(timeline.stretch.seconds_before) if timeline.stretch else 0.0
    tags = {key.lower(): value for key, value in {**video.metadata, **source.metadata}.items()}
    # Apple's has the time zone of the camera.
    for key in ("com.apple.quicktime.creationdate", "creation_time"):
        text = re.sub(r"([+-]\d\d)(\d\d)$", r"\1:\2", tags.get(key, "").replace("Z", "+00:00"))
        with contextlib.suppress(ValueError, OverflowError):
            time = datetime.fromisoformat(text)
            time = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
            return (time + timedelta(seconds=before)).isoformat(timespec="milliseconds")
    return None


def is_chapter_or_timecode_track(
    source: InputContainer, stream: Stream, handler: bytes = b""
) -> bool:
    """Whether a stream of an MP4 or MOV file says in packets what FFmpeg gives as metadata.

    handler: what its track says of its kind, if that is known: places have another one.
    """
    if stream.type != "data" or "mp4" not in source.format.name.split(","):
        return False
    is_text = getattr(stream, "name", None) == "bin_data" and handler in (b"", b"text")
    return "timecode" in stream.metadata or (is_text and bool(source.chapters()))


def _tags(source: InputContainer, annotated: VideoStream) -> dict[str, str]:
    """Those of the whole clip, which Ogg keeps with the video."""
    of_video = annotated.metadata if source.format.name == "ogg" else {}
    return {
        key: value
        for key, value in {**of_video, **source.metadata}.items()
        if key.lower() not in _OF_FILES
    }


def _timecode(source: InputContainer, annotated: VideoStream) -> str | None:
    found = {key.lower(): value for key, value in source.metadata.items()}
    return annotated.metadata.get("timecode") or found.get("timecode")


def _mp4_takes_timecode(timecode: str, annotated: VideoStream) -> bool:
    """Ask the muxer itself, which fails for one that does not fit the frame rate."""
    rate = exact(annotated.average_rate)
    if rate is None:
        return False
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as trial:
            stream = trial.add_mux_stream("mpeg4", rate, width=16, height=16)
            stream.time_base = 1 / rate
            stream.metadata["timecode"] = timecode
            trial.start_encoding()
    except (av.FFmpegError, ValueError):
        return False
    return True


@functools.lru_cache(maxsize=16)  # The clips of one camera have the same.
def _kept_by_mp4(tags: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """Ask the muxer itself, by writing a file with these tags and reading it back."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as trial:
        trial.metadata.update(dict(tags))
        trial.add_mux_stream("mpeg4", width=16, height=16).time_base = Fraction(1, 25)
        trial.start_encoding()
    file.seek(0)
    with av.open(file, **LENIENT) as written:
        return frozenset(key.lower() for key in written.metadata)


def _chapters(
    source: InputContainer, end_seconds: float | None, offset_seconds: Fraction = Fraction(0)
) -> list[Any]:
    """The chapters of a clip, in order and none within another, up to an end.

    offset_seconds: the time in the source that becomes 0.
    """
    chapters: list[Any] = []
    for found in sorted(source.chapters(), key=_begin_seconds):
        offset = round(offset_seconds / _tick_seconds(found))
        chapter: Any = {**found, "start": max(0, found["start"] - offset)}
        chapter["end"] = found["end"] - offset
        begin, end = _begin_seconds(chapter), chapter["end"] * _tick_seconds(chapter)
        if end <= 0 and offset:
            continue
        if end_seconds is not None:
            if begin >= end_seconds:
                break
            end = min(end, Fraction(end_seconds))
        if chapters and begin <= _begin_seconds(chapters[-1]):
            continue  # The first part of a chapter that is divided further.
        if chapters:
            chapters[-1]["end"] = min(chapters[-1]["end"], chapter["start"])
        tick = _tick_seconds(chapter)
        title = chapter["metadata"].get("title") or f"Chapter {len(chapters) + 1}"
        chapters.append(
            {
                "id": len(chapters) + 1,
                "start": chapter["start"],
                "end": max(chapter["start"] + 1, int(end / tick)),
                "time_base": tick,
                "metadata": {"title": title},
            }
        )
    return chapters


def _tick_seconds(chapter: Any) -> Fraction:
    return exact(chapter["time_base"]) or Fraction(1)


def _begin_seconds(chapter: Any) -> Fraction:
    return Fraction(chapter["start"]) * _tick_seconds(chapter)
