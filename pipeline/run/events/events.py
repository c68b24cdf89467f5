"""Finished results, lines and zones -> events, in files and in the reports of the clips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.core.detection_lines import last_seconds
from pipeline.core.errors import InputError
from pipeline.core.position import Beat, no_beat
from pipeline.run.events.files import ClipEvents, write_events_csv, write_events_json
from pipeline.run.events.follow import follow
from pipeline.run.events.shapes import Shapes
from pipeline.run.exports.clip import ExportedClip
from pipeline.run.outputs import (
    DETECTIONS_NAME,
    EVENTS_CSV_NAME,
    EVENTS_JSON_NAME,
    VIEWER_DATA_NAME,
)
from pipeline.run.report_files import update_report
from pipeline.run.viewer.events import write_events as write_viewer_events


def find_events(
    clips: Sequence[ExportedClip], shapes: Shapes, beat: Beat = no_beat
) -> list[ClipEvents]:
    """The events of each clip. Raises InputError for detections that were not tracked.

    beat: called for each line of detections.
    """
    found = []
    for clip in clips:
        in_pixels = shapes.scaled(clip.size_wh)
        events = follow(clip.frames(beat), in_pixels, _seconds(clip))
        if events.num_boxes and not events.num_tracks and not clip.is_tracked:
            raise InputError(
                f"{clip.detections}: its boxes have no track_id: process the clip with --track, or "
                "use `pipeline track`"
            )
        found.append(ClipEvents(clip, in_pixels, events))
    return found


def _seconds(clip: ExportedClip) -> float:
    """When the last frame of a clip ends, whatever gaps there are between its frames."""
    return round(last_seconds(clip.detections) + float(1 / clip.frame_rate), 3)


def write_events(found: Sequence[ClipEvents], folder: Path) -> list[Path]:
    """Write events.csv and events.json, in place of earlier ones; returns their paths.

    Raises InputError.
    """
    writers = {EVENTS_CSV_NAME: write_events_csv, EVENTS_JSON_NAME: write_events_json}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, write in writers.items():
            unfinished = folder / f".{name}.unfinished"
            try:
                write(found, unfinished)
                unfinished.replace(folder / name)
            finally:
                unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{error.filename or folder}: {error.strerror}") from error
    return [folder / name for name in writers]


def report_events(found: Sequence[ClipEvents]) -> None:
    """Bring the reports and viewers beside the detections up to date. Raises InputError."""
    for clip in found:
        folder = clip.clip.detections.parent
        if clip.clip.detections.name != DETECTIONS_NAME:
            continue
        update_report(folder, {"events": clip.counts()})
        if (folder / VIEWER_DATA_NAME).is_dir():
            try:
                write_viewer_events(clip, folder / VIEWER_DATA_NAME)
            except OSError as error:
                raise InputError(f"{error.filename or folder}: {error.strerror}") from error
