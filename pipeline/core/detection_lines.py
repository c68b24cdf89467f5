"""The lines of detections.jsonl and truth.jsonl: one JSON object per frame."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import NO_TRACK, Detections
from pipeline.core.errors import InputError
from pipeline.core.position import Beat, no_beat

_TAIL_BYTES = 65_536
"""More than nearly every line has."""


@dataclass(frozen=True, slots=True)
class DetectionLine:
    """The detections of one frame.

    pts: ticks as in the source; None where it has none. pts_seconds: when a player shows it.
    interpolated: whether the boxes come from other frames; None where every frame is inferred.
    """

    frame_index: int
    pts: int | None
    pts_seconds: float
    detections: Detections
    interpolated: bool | None = None

    def to_json(self, class_names: Sequence[str]) -> str:
        """A line without its end."""
        return json.dumps(self.record(class_names))

    def record(self, class_names: Sequence[str]) -> dict[str, Any]:
        """The values of a line, rounded as they are written."""
        record: dict[str, Any] = {
            "frame_index": self.frame_index,
            "pts": self.pts,
            "pts_seconds": round(self.pts_seconds, 6),
        }
        if self.interpolated is not None:
            record["interpolated"] = self.interpolated
        record["detections"] = self.detections.as_records(class_names)
        return record

    @classmethod
    def from_json(cls, line: str) -> DetectionLine:
        """Raises ValueError, KeyError or TypeError for what is no such line."""
        return cls.from_record(json.loads(line))

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> DetectionLine:
        """Raises ValueError, KeyError or TypeError for what is none of such a line."""
        entries = record["detections"]
        return cls(
            frame_index=int(record["frame_index"]),
            pts=record.get("pts"),
            pts_seconds=float(record["pts_seconds"]),
            detections=Detections(
                np.array([entry["xyxy"] for entry in entries], np.float32).reshape(-1, 4),
                np.array([entry["confidence"] for entry in entries], np.float32),
                np.array([entry["class_id"] for entry in entries], np.int64),
                _track_ids(entries),
            ),
            interpolated=record.get("interpolated"),
        )


def _track_ids(entries: list[dict[str, Any]]) -> NDArray[np.int64] | None:
    """Of the boxes of a line; None where nothing was tracked."""
    if not any("track_id" in entry for entry in entries):
        return None
    ids = (entry.get("track_id") for entry in entries)
    return np.array([NO_TRACK if track_id is None else track_id for track_id in ids], np.int64)


class DetectedBox(NamedTuple):
    """A box as it stands in a line.

    xyxy: left, top, right, bottom in pixels of the displayed frame. track_id: None for a box that
    belongs to no track.
    """

    class_id: int
    class_name: str
    confidence: float
    xyxy: tuple[float, float, float, float]
    track_id: int | None = None


@dataclass(frozen=True, slots=True)
class DetectedFrame:
    """A line as plain values: see DetectionLine. boxes: most confident first."""

    frame_index: int
    pts: int | None
    pts_seconds: float
    boxes: tuple[DetectedBox, ...]
    interpolated: bool | None = None

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
        """The boxes as xyxy (N, 4) in pixels, class_id (N,) and confidence (N,)."""
        return (
            np.array([box.xyxy for box in self.boxes], np.float32).reshape(-1, 4),
            np.array([box.class_id for box in self.boxes], np.int64),
            np.array([box.confidence for box in self.boxes], np.float32),
        )

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> DetectedFrame:
        """Of the values of a line. Raises ValueError, KeyError or TypeError."""
        boxes = []
        for entry in record["detections"]:
            left, top, right, bottom = map(float, entry["xyxy"])
            boxes.append(
                DetectedBox(
                    int(entry["class_id"]),
                    str(entry["class_name"]),
                    float(entry["confidence"]),
                    (left, top, right, bottom),
                    entry.get("track_id"),
                )
            )
        return cls(
            int(record["frame_index"]),
            record.get("pts"),
            float(record["pts_seconds"]),
            tuple(boxes),
            record.get("interpolated"),
        )


def read_detections(path: Path | str, beat: Beat = no_beat) -> Iterator[DetectedFrame]:
    """The frames of detections.jsonl or truth.jsonl, read one at a time.

    beat: called for each. Raises InputError, with the number of the line, for a file that cannot be
    read or is damaged.
    """
    number = 0
    try:
        with Path(path).open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):  # noqa: B007
                beat()
                yield DetectedFrame.from_record(json.loads(line))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: line {number} is damaged ({error!r})") from error


def last_seconds(path: Path) -> float:
    """When the last frame of a file of lines is shown; 0 without frames. Reads its end only.

    Raises InputError for a file that cannot be read or is damaged.
    """
    try:
        last = _last_line(path)
        return float(json.loads(last)["pts_seconds"]) if last else 0.0
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: the last line is damaged ({error!r})") from error


def _last_line(path: Path) -> bytes:
    num_bytes = _TAIL_BYTES
    with path.open("rb") as lines:
        size = lines.seek(0, os.SEEK_END)
        while True:
            lines.seek(max(0, size - num_bytes))
            _, newline, last = lines.read().rstrip(b"\n").rpartition(b"\n")
            if newline or num_bytes >= size:
                return last
            num_bytes *= 4


def read_detection_lines(path: Path) -> Iterator[DetectionLine]:
    """The lines of a file, one at a time. Raises OSError, ValueError, KeyError or TypeError."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            yield DetectionLine.from_json(line)


def join_lines(parts: Sequence[Path], num_frames: Sequence[int], target: Path) -> None:
    """Lay the lines of all segments end to end; frames then count from the clip's beginning."""
    with target.open("wb") as out:
        for line in _numbered(parts, num_frames):
            out.write(line)


def _numbered(parts: Sequence[Path], num_frames: Sequence[int]) -> Iterator[bytes]:
    begins = itertools.accumulate(num_frames, initial=0)
    for part, begin in zip(parts, begins, strict=False):
        with part.open("rb") as lines:
            if begin == 0:
                yield from lines
                continue
            for line in lines:
                # {"frame_index": 12, ...: not read as JSON, of which there may be gigabytes.
                name, _, rest = line.partition(b": ")
                index, _, rest = rest.partition(b",")
                yield b"%s: %d,%s" % (name, begin + int(index), rest)
