"""The detections of an earlier run, with what its report says of their clip.

Imports nothing heavy: the parent process reads it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pipeline.core.config import DrawOptions, EncodeOptions, RedactOptions
from pipeline.core.errors import InputError, UsageError
from pipeline.core.text import counted
from pipeline.run.outputs import COVERS_NAME, REPORT_JSON_NAME, REPORT_VERSION

if TYPE_CHECKING:
    from pipeline.media.frame import VideoInfo  # At run time it would load FFmpeg.


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """What `render` takes of an earlier run.

    detections: its lines. num_lines: how many there must be. class_names: by class_id.
    name, size_wh, time_base, fingerprint: of the clip, see report.json. num_frames: the first
    frames only; None for all. start, end: of the slice of the clip. encode, draw, deinterlace,
    segment_seconds: as in ProcessConfig, with the threads that the encoder had or would have had.
    redact: what was covered. covers: the lines of what is covered; None where nothing is.
    report: all of it.
    """

    detections: Path
    num_lines: int
    class_names: tuple[str, ...]
    name: str
    size_wh: tuple[int, int]
    time_base: Fraction
    fingerprint: str
    num_frames: int | None
    start: str | None
    end: str | None
    encode: EncodeOptions
    draw: DrawOptions
    deinterlace: str
    segment_seconds: float
    redact: RedactOptions
    covers: Path | None
    report: dict[str, Any]

    def encode_with(self, **asked: Any) -> EncodeOptions:
        """The options of the encoder of that run, with those that are asked for in their place.

        With another codec, none of that run's but size, sound and threads. Raises UsageError.
        """
        codec = asked.get("codec", self.encode.codec)
        if codec != self.encode.codec:
            names = ("output_size", "drop_audio", "threads")
            kept = {name: getattr(self.encode, name) for name in names}
            return EncodeOptions(**{**kept, **asked})
        return dataclasses.replace(self.encode, **asked)

    def require_clip(self, info: VideoInfo, fingerprint: str | None) -> None:
        """Raise InputError for another clip than that of the detections."""
        of_clip = (fingerprint, info.size_wh, info.time_base)
        if of_clip != (self.fingerprint, self.size_wh, self.time_base):
            raise InputError(
                f"{self.detections}: the detections belong to another clip, {self.name} of "
                f"{self.size_wh[0]}x{self.size_wh[1]}: give that one, or process this one first"
            )

    def require_frames(self, num_frames: int) -> None:
        """Raise InputError if another number of frames was decoded than there are lines."""
        if num_frames != self.num_lines:
            raise InputError(
                f"{self.detections}: has {counted(self.num_lines, 'line')}, but of the clip "
                f"{counted(num_frames, 'frame')} can be decoded: process it again"
            )


@dataclass(frozen=True, slots=True)
class Rendered:
    """The outcome of drawing it.

    file: the name of the annotated file. notes: what was left out or unusual.
    """

    file: str
    num_frames: int
    wall_seconds: float
    notes: tuple[str, ...]


def read_recorded(detections: Path) -> RecordedRun:
    """What the report beside detections says. Raises InputError."""
    num_lines = _num_lines(detections)
    recorded = from_report(detections, _recorded)
    if num_lines != recorded.num_lines:
        raise InputError(
            f"{detections}: holds {counted(num_lines, 'line')} but the report says "
            f"{recorded.num_lines}: it was changed; process the clip again"
        )
    return recorded


Read = TypeVar("Read")


def from_report(detections: Path, read: Callable[[Path, dict[str, Any]], Read]) -> Read:
    """What `read` makes of detections and the report beside them.

    Raises InputError if the report is missing, damaged or of another version, or if `read` raises
    KeyError, TypeError, ValueError, ZeroDivisionError or UsageError.
    """
    path = detections.parent / REPORT_JSON_NAME
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: {error.strerror}: detections are used with the {REPORT_JSON_NAME} that was "
            "written beside them"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: is damaged ({error})") from error
    try:
        if report["schema_version"] != REPORT_VERSION:
            raise ValueError("another version")
        return read(detections, report)
    except (KeyError, TypeError, ValueError, ZeroDivisionError, UsageError) as error:
        raise InputError(
            f"{path}: is damaged, or of another version than {REPORT_VERSION}: process the clip "
            "again with this version"
        ) from error


def _num_lines(detections: Path) -> int:
    try:
        with detections.open("rb") as lines:
            return sum(1 for _ in lines)
    except OSError as error:
        raise InputError(f"{detections}: {error.strerror}") from error


def _recorded(detections: Path, report: dict[str, Any]) -> RecordedRun:
    source, used = report["source"], report["configuration"]
    if source["fingerprint"] is None:
        raise InputError(
            f"{detections}: is of {source['name']}, which is not a file: only detections of a "
            "clip or a picture can be drawn"
        )
    width, height = source["size_wh"]
    redact = RedactOptions(**used.get("redact", {}))
    return RecordedRun(
        detections=detections,
        num_lines=int(report["output"]["num_frames"]),
        class_names=tuple(map(str, report["model"]["class_names"])),
        name=str(source["name"]),
        size_wh=(int(width), int(height)),
        time_base=Fraction(source["time_base"]),
        fingerprint=str(source["fingerprint"]),
        num_frames=used["num_frames"],
        start=used.get("start"),
        end=used.get("end"),
        encode=EncodeOptions(**used["encode"]),
        draw=DrawOptions(**used.get("draw", {})),
        deinterlace=used["deinterlace"],
        segment_seconds=used["segment_seconds"],
        redact=redact,
        covers=None if redact.covered is None else _covers_beside(detections),
        report={**report, "detections_key": str(report["detections_key"])},
    )


def _covers_beside(detections: Path) -> Path:
    path = detections.parent / COVERS_NAME
    if not path.is_file():
        raise InputError(
            f"{path}: is missing: without it, what was covered would be shown; process the clip "
            "again"
        )
    return path
