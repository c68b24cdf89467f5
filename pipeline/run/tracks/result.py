"""Tracks of an earlier result: its detection lines get ids, in place, without pixels."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.core.config import DetectOptions, DrawOptions, EncodeOptions
from pipeline.core.detection_lines import read_detections
from pipeline.core.errors import InputError, UsageError
from pipeline.core.files import flush_to_disk
from pipeline.core.notes import note
from pipeline.core.progress import Progress, ProgressCallback, no_progress
from pipeline.execution.journal import open_journal
from pipeline.run.identity import drawn_key
from pipeline.run.outputs import (
    CROPS_NAME,
    DETECTIONS_NAME,
    EVENTS_JSON_NAME,
    HIGHLIGHTS_NAME,
    REPORT_JSON_NAME,
    VIEWER_DATA_NAME,
    VIEWER_PAGE_NAME,
    WEAK_NAME,
    move_into_place,
    remove_cut_out,
)
from pipeline.run.recorded import from_report
from pipeline.run.report_files import update_report
from pipeline.run.tracks.lines import frame_rate_of, write_tracked
from pipeline.run.tracks.tracker import open_tracker, require_trackers
from pipeline.run.viewer.viewer import earlier_source, write_viewer


@dataclass(frozen=True, slots=True)
class Tracked:
    """The outcome: a file of detection lines with the ids of so many tracks."""

    detections: Path
    num_frames: int
    num_tracks: int


def track_result(
    path: Path,
    tracker: str,
    *,
    overwrite: bool = False,
    on_progress: ProgressCallback = no_progress,
) -> Tracked:
    """Give the boxes of a result the ids of their tracks.

    path: of its folder, or of its detections. The file is replaced when all of it is written;
    nothing in it changes but `track_id`. The report.json beside it, where there is one, gives the
    frame rate and the confidence from which a box begins a track, and is brought up to date.
    overwrite: replace ids that boxes have already. Raises InputError, UsageError.
    """
    require_trackers()
    detections = path / DETECTIONS_NAME if path.is_dir() else path
    num_frames, seconds = _checked(detections, overwrite=overwrite)
    report, frame_rate, least = _of_report(detections)
    weak = _weak_beside(detections)
    opened = open_tracker(tracker, frame_rate or frame_rate_of(seconds), least)
    tell = functools.partial(_tell, on_progress, num_frames)
    with open_journal(detections.parent) as journal:
        target = journal.folder / "tracked.jsonl"
        try:
            num_tracks = write_tracked(detections, weak, target, opened, tell)
            flush_to_disk(target)
            # Before the lines are replaced: a damaged report is found while nothing has changed.
            told = None if report is None else _with_tracks(report, tracker, num_tracks)
            if told is not None:
                _remove_outdated(detections.parent, told)
            target.replace(detections)
        finally:
            target.unlink(missing_ok=True)
        if told is not None:
            update_report(detections.parent, told)
            _write_viewer(detections.parent, told)
        flush_to_disk(detections.parent)
    if (detections.parent / EVENTS_JSON_NAME).exists():
        note(
            "the events beside the detections belong to the previous tracks: repeat `pipeline "
            "events`"
        )
    return Tracked(detections, num_frames, num_tracks)


def _tell(on_progress: ProgressCallback, num_frames: int, index: int) -> None:
    on_progress(Progress("frames", index + 1, num_frames))


def _checked(detections: Path, *, overwrite: bool) -> tuple[int, list[float]]:
    """The number of lines and their times. Raises InputError for ids that may not be replaced."""
    seconds = []
    for frame in read_detections(detections):
        seconds.append(frame.pts_seconds)
        if not overwrite and any(box.track_id is not None for box in frame.boxes):
            raise InputError(f"{detections}: has tracks already: --overwrite replaces them")
    return len(seconds), seconds


def _of_report(detections: Path) -> tuple[dict[str, Any] | None, float | None, float]:
    """The report beside a result, frame rate and least confidence; those usual without one."""
    if detections.name != DETECTIONS_NAME or not (detections.parent / REPORT_JSON_NAME).exists():
        return None, None, DetectOptions().least_confidence
    return from_report(detections, _facts)


def _weak_beside(detections: Path) -> Path | None:
    """The boxes of less confidence that were kept beside a result; notes if there are none."""
    weak = detections.parent / WEAK_NAME
    if detections.name == DETECTIONS_NAME and weak.is_file():
        return weak
    note(
        f"{weak} is missing, which `process --track` writes: without the boxes of less confidence "
        "in it, tracks may end where objects are hard to see"
    )
    return None


def _facts(_: Path, report: dict[str, Any]) -> tuple[dict[str, Any], float | None, float]:
    """The report, the frame rate (None where it is not known), and the least confidence."""
    rate, used = report["source"]["frame_rate"], report["configuration"]["detect"]
    options = DetectOptions(
        confidence_threshold=used["confidence_threshold"],
        class_thresholds=tuple((name, least) for name, least in used["class_thresholds"]),
    )
    return report, None if rate is None else float(Fraction(rate)), options.least_confidence


def _remove_outdated(folder: Path, told: dict[str, Any]) -> None:
    """Remove what was cut out by the ids before, or shows them."""
    outdated = [name for name in (CROPS_NAME, HIGHLIGHTS_NAME) if told[name] is None]
    if removed := remove_cut_out(folder, outdated):
        again = " and ".join(f"`pipeline {name}`" for name in removed)
        note(f"{' and '.join(removed)} of the boxes before are removed: repeat {again}")


def _with_tracks(report: dict[str, Any], tracker: str, num_tracks: int) -> dict[str, Any]:
    """The report with the tracks; a run is then asked for the same only by `track`."""
    try:
        configuration, output = report["configuration"], report["output"]
        if configuration.get("track") != tracker:
            key = hashlib.sha256(f"{report['detections_key']} {tracker}".encode()).hexdigest()
            encode = None
            if output["file"] is not None:
                encode = EncodeOptions(**{**configuration["encode"], "threads": None})
            draw = DrawOptions(**configuration.get("draw", {}))
            report["detections_key"], report["result_key"] = key, drawn_key(key, encode, draw)
            report["command"] = None
            output["notes"] = list(dict.fromkeys([*output["notes"], _note(tracker)]))
        configuration["track"] = tracker
        report["detections"]["tracks"] = num_tracks
        # Of other tracks.
        report["events"] = report["crops"] = None
        known = report.get("highlights")
        is_kept = known and known["from_source"] and known["of"] == "finds"
        report["highlights"] = known if is_kept else None
    except (KeyError, TypeError, UsageError) as error:
        raise InputError(
            f"{REPORT_JSON_NAME} beside the detections is damaged, or of another version"
        ) from error
    return report


def _write_viewer(folder: Path, report: dict[str, Any]) -> None:
    """Write the viewer of a result anew, with the ids."""
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as unfinished:
        frames = read_detections(folder / DETECTIONS_NAME)
        write_viewer(report, frames, earlier_source(folder), Path(unfinished))
        move_into_place(Path(unfinished), folder, (VIEWER_DATA_NAME, VIEWER_PAGE_NAME))


def _note(tracker: str) -> str:
    return f"the ids of tracks were found later, by `pipeline track --tracker {tracker}`"
