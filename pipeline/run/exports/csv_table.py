"""CSV (RFC 4180): one row per box, one table for all clips."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.detection_lines import DetectedFrame
from pipeline.run.exports.clip import ExportedClip

COLUMNS = (
    "clip",
    "frame_index",
    "pts",
    "pts_seconds",
    "interpolated",
    "track_id",
    "class_id",
    "class_name",
    "confidence",
    "left",
    "top",
    "right",
    "bottom",
)


def write_csv(clips: Sequence[ExportedClip], target: Path) -> None:
    """Write a table with these columns; what is unknown is an empty cell.

    pts_seconds: when the frame is shown, from 0. Edges of boxes: in pixels of the displayed frame.
    """
    with target.open("w", encoding="utf-8", newline="") as out:
        table = csv.writer(out)
        table.writerow(COLUMNS)
        for clip in clips:
            for frame in clip.frames():
                table.writerows(_rows(clip, frame))


def _rows(clip: ExportedClip, frame: DetectedFrame) -> list[tuple[object, ...]]:
    interpolated = None if frame.interpolated is None else int(frame.interpolated)
    place = (clip.name, frame.frame_index, frame.pts, frame.pts_seconds, interpolated)
    return [
        (*place, box.track_id, box.class_id, box.class_name, box.confidence, *box.xyxy)
        for box in frame.boxes
    ]
