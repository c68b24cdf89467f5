"""Cuts -> an edit decision list (CMX 3600) and an OpenTimelineIO timeline for editing programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.core.text import printable

_MOST_EDL_RATE = 99
"""A time code has two digits for frames."""
_CLOSE_TO_A_FRAME = 1e-3


@dataclass(frozen=True, slots=True)
class Edit:
    """A part of a medium, in seconds from its beginning. name: what it shows."""

    begin_seconds: float
    end_seconds: float
    name: str


@dataclass(frozen=True, slots=True)
class Medium:
    """The file that edits are parts of.

    address: a URL, or a path relative to the lists. num_seconds: about how long it lasts.
    """

    name: str
    address: str
    frame_rate: Fraction
    num_seconds: float


def has_edl(frame_rate: Fraction) -> bool:
    """Whether time codes can count the frames of a clip."""
    return round(frame_rate) <= _MOST_EDL_RATE


def write_edl(edits: Sequence[Edit], medium: Medium, title: str, target: Path) -> None:
    """Write the edits one after the other, in time codes that count every frame (non-drop).

    Frames are counted at the rate of the medium: where its times are uneven, each time is that of
    the nearest one.
    """
    target.write_text("\n".join(_edl_lines(edits, medium, title)) + "\n", encoding="ascii")


def _edl_lines(edits: Sequence[Edit], medium: Medium, title: str) -> Iterator[str]:
    base = max(1, round(medium.frame_rate))
    yield f"TITLE: {_ascii(title)}"
    yield "FCM: NON-DROP FRAME"
    recorded = 0
    for number, edit in enumerate(edits, 1):
        begin = round(edit.begin_seconds * medium.frame_rate)
        end = max(begin + 1, round(edit.end_seconds * medium.frame_rate))
        frames = (begin, end, recorded, recorded + end - begin)
        recorded = frames[-1]
        codes = " ".join(_time_code(frame, base) for frame in frames)
        yield ""
        yield f"{number:03d}  AX       V     C        {codes}"
        yield f"* FROM CLIP NAME: {_ascii(medium.name)}"
        yield f"* COMMENT: {_ascii(edit.name)}"


def _time_code(frame: int, base: int) -> str:
    seconds, frames = divmod(frame, base)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}:{frames:02d}"


def _ascii(text: str) -> str:
    """On one line, in the letters that the format has."""
    return printable(text).encode("ascii", "replace").decode("ascii").strip() or "-"


def write_otio(edits: Sequence[Edit], medium: Medium, title: str, target: Path) -> None:
    """Write the edits one after the other; times count at the rate of the medium.

    Where its times are uneven, they are no whole numbers.
    """
    track = _item("Track.1", "highlights", kind="Video")
    track["children"] = [_clip(edit, medium) for edit in edits]
    tracks = _item("Stack.1", "tracks", children=[track])
    timeline = {
        "OTIO_SCHEMA": "Timeline.1",
        "metadata": {},
        "name": title,
        "global_start_time": None,
        "tracks": tracks,
    }
    target.write_text(json.dumps(timeline, indent=1) + "\n", encoding="utf-8")


def _clip(edit: Edit, medium: Medium) -> dict[str, Any]:
    reference = {
        "OTIO_SCHEMA": "ExternalReference.1",
        "metadata": {},
        "name": medium.name,
        "available_range": _range(0, max(medium.num_seconds, edit.end_seconds), medium.frame_rate),
        "available_image_bounds": None,
        "target_url": medium.address,
    }
    clip = _item("Clip.2", edit.name, media_references={"DEFAULT_MEDIA": reference})
    clip["active_media_reference_key"] = "DEFAULT_MEDIA"
    clip["source_range"] = _range(edit.begin_seconds, edit.end_seconds, medium.frame_rate)
    return clip


def _item(schema: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "OTIO_SCHEMA": schema,
        "metadata": {},
        "name": name,
        "source_range": None,
        "effects": [],
        "markers": [],
        "enabled": True,
        **more,
    }


def _range(begin_seconds: float, end_seconds: float, rate: Fraction) -> dict[str, Any]:
    begin, end = _value(begin_seconds, rate), _value(end_seconds, rate)
    return {
        "OTIO_SCHEMA": "TimeRange.1",
        "start_time": _time(begin, rate),
        "duration": _time(end - begin, rate),
    }


def _value(seconds: float, rate: Fraction) -> float:
    """The time in frames: a whole number if it is close to one."""
    value = float(seconds * rate)
    return float(round(value)) if abs(value - round(value)) < _CLOSE_TO_A_FRAME else value


def _time(value: float, rate: Fraction) -> dict[str, Any]:
    return {"OTIO_SCHEMA": "RationalTime.1", "rate": float(rate), "value": value}
