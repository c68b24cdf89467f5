"""The result of a run or a batch -> the summary lines on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.batch.batch import ClipResult
from pipeline.core.text import counted, duration, printable
from pipeline.run.outputs import (
    BATCH_PAGE_NAME,
    DETECTIONS_NAME,
    REPORT_PAGE_NAME,
    VIEWER_PAGE_NAME,
)

_MOST_NAMED = 20
"""How many clips with the same reason are listed."""
_LEAST_BINS, _MOST_CLASSES = 3, 3
"""Of counts over time that are shown."""
_BARS = "▁▂▃▄▅▆▇█"


def run_summary(report: dict[str, Any], folder: str, *, has_viewer: bool = True) -> list[str]:
    """The summary of one run.

    report: as in report.json. folder: the folder or address of the results. has_viewer: whether
    the viewer of a clip is still there.
    """
    boxes = report["detections"]
    result = report["output"]["file"] or f"{DETECTIONS_NAME} (no annotated file)"
    tracks = f" of {counted(boxes['tracks'], 'track')}" if boxes.get("tracks") else ""
    has_viewer = has_viewer and not report["source"]["is_picture"]
    return [
        *_speed_lines(report),
        f"{counted(boxes['total'], 'box', 'boxes')}{tracks} in "
        f"{counted(boxes['frames_with_any'], 'frame')}"
        f"{''.join(f'; {remark}' for remark in _remarks(report))}",
        *_over_time_lines(boxes.get("over_time")),
        *_accuracy_lines(report),
        f"{folder}/{result}, report in {folder}/{REPORT_PAGE_NAME}",
        *([f"look at it in {folder}/{VIEWER_PAGE_NAME}"] if has_viewer else []),
    ]


def _over_time_lines(counts: dict[str, Any] | None) -> list[str]:
    """The most frequent classes, with a bar for each stretch of time.

    counts: None in the report of an earlier version.
    """
    if counts is None or len(counts["frames"]) < _LEAST_BINS:
        return []
    frames = counts["frames"]
    means = {
        name: [number / max(1, of) for number, of in zip(numbers, frames, strict=True)]
        for name, numbers in list(counts["boxes"].items())[:_MOST_CLASSES]
    }
    width = max(map(len, means), default=0)
    return [
        f"{name:<{width}}  {_bars(values)}  per {duration(counts['bin_seconds'])}, up to "
        f"{max(values):.2g} in a frame"
        for name, values in means.items()
    ]


def _bars(values: Sequence[float]) -> str:
    """A character per value, the highest for the largest one; a dot for zero."""
    top = max(values)
    levels = [-(-len(_BARS) * value // top) if value else 0 for value in values]
    return "".join(_BARS[int(level) - 1] if level else "." for level in levels)


def events_summary(counts: dict[str, Any], clip: str | None) -> list[str]:
    """What happened at lines and in zones.

    counts: as in `events` of a report. clip: its name, if there are several.
    """
    begin = f"{clip}: " if clip else ""
    lines = []
    for line in counts["lines"]:
        directions = [
            f"{sum(found.values())} {direction}{_by_class(found)}"
            for direction, found in line["crossings"].items()
        ]
        lines.append(f"{begin}line {line['name']}: {', '.join(directions)}")
    for zone in counts["zones"]:
        visits = {name: found["visits"] for name, found in zone["visits"].items()}
        total = sum(visits.values())
        dwell = sum(found["dwell_seconds"] for found in zone["visits"].values())
        mean = f", {duration(dwell / total)} each on average" if total else ""
        lines.append(
            f"{begin}zone {zone['name']}: {counted(total, 'visit')}{_by_class(visits)}{mean}"
        )
    return lines


def _by_class(counts: dict[str, int]) -> str:
    found = ", ".join(f"{name} {number}" for name, number in counts.items())
    return f" ({found})" if found else ""


def _speed_lines(report: dict[str, Any]) -> list[str]:
    speed, used, slowest = report["speed"], report["configuration"], report["bottleneck"]
    real_time = (
        f", {speed['times_real_time']:.1f} times real time" if speed["times_real_time"] else ""
    )
    # Unknown for some devices.
    streams = f", {counted(used['num_streams'], 'stream')}" if used["num_streams"] else ""
    return [
        f"{counted(report['output']['num_frames'], 'frame')} in {speed['wall_seconds']:.2f} s: "
        f"{speed['file_to_file_fps']:.1f} fps from file to file{real_time}",
        f"model alone {speed['model_alone_fps']:.1f} fps ({used['device']}, hint {used['hint']}, "
        f"{used['precision']}{streams}, {counted(used['num_requests'], 'request')}); "
        f"cores {100 * speed['cores_busy']:.0f}% busy",
        f"bottleneck {slowest['step']}: {slowest['share_of_cpu']:.0%} of the CPU time; "
        f"next {slowest['next_step']}, {slowest['margin']:.1f} times faster",
    ]


def _remarks(report: dict[str, Any]) -> list[str]:
    """What was unusual about the model, the segments, the frames or the source."""
    remarks: list[str] = []
    if report["model"]["precision_note"]:
        remarks.append(report["model"]["precision_note"])
    boxes, segments = report["detections"], report["segments"]
    if segments["done_before"]:
        remarks.append(
            f"{segments['done_before']} of {counted(segments['number'], 'segment')} "
            f"({counted(segments['frames_done_before'], 'frame')}) resumed from an interrupted run"
        )
    if number := boxes["reused_frames"]:
        remarks.append(f"{counted(number, 'frame')} identical to the one before, not inferred")
    if number := boxes["interpolated_frames"]:
        remarks.append(f"boxes of {counted(number, 'frame')} interpolated, not inferred")
    mended = {key: value for key, value in report["source"]["faults"].items() if value}
    return remarks + [f"{key.replace('_', ' ')}: {value}" for key, value in mended.items()]


def _accuracy_lines(report: dict[str, Any]) -> list[str]:
    """What the ground truth and the audits say about the boxes."""
    lines = []
    if report["truth"] and report["truth"]["num_pairs"]:
        truth = report["truth"]
        lines.append(
            f"truth: {truth['recall']:.1%} of {counted(truth['num_things'], 'object')} found, "
            f"{truth['precision']:.1%} of the boxes right; mean IoU {truth['mean_iou']:.3f}"
        )
    if audit := report["audit"]:
        frames = counted(audit["num_frames"], "interpolated frame")
        lines.append(_audit_line(audit, f"audit of {frames}", "inferred ones"))
    if audit := report["precision_audit"]:
        frames = counted(audit["num_frames"], "frame")
        lines.append(_audit_line(audit, f"INT8 on {frames}", "those in float"))
    return lines


def _audit_line(audit: dict[str, Any], subject: str, reference: str) -> str:
    """What an audit found.

    subject: the frames and the boxes that were judged. reference: those that they should be as.
    """
    first = audit["by_iou"][0]
    if not any(side["num_boxes"] for side in first.values() if isinstance(side, dict)):
        return f"{subject}: too few boxes to compare"
    shares = ", ".join(
        f"{found['share']:.1%} (95% interval {found['interval_95'][0]:.1%} to "
        f"{found['interval_95'][1]:.1%}) at IoU {found['iou']:g}"
        for found in audit["by_iou"]
    )
    line = f"{subject}: boxes agree with {reference} in {shares}"
    if audit["verdict"] == "undecided":
        line += f"; too short to decide whether {audit['least_agreement']:g} is reached"
    return line


def batch_summary(record: dict[str, Any], folder: Path, *, kept: bool = False) -> list[str]:
    """The summary of a batch.

    record: as in batch.json. folder: the output folder. kept: whether the batch.json there is that
    of an earlier command.
    """
    total = record["total"]
    now = total["this_run"]
    counts = [f"{total['done']} of {counted(total['clips'], 'clip')} done"]
    if total["skipped"]:
        counts.append(f"{total['skipped']} skipped, already done")
    counts += [
        f"{total[key]} {key.replace('_', ' ')}" for key in ("failed", "not_reached") if total[key]
    ]
    lines = ["; ".join(counts)]
    if now["num_frames"]:
        footage, real_time = "", ""
        if now["footage_hours"]:  # Zero for pictures.
            footage = f", {duration(3600 * now['footage_hours'])} of footage,"
            real_time = f", {now['times_real_time']:.1f} times real time"
        lines.append(
            f"{counted(now['num_frames'], 'frame')}{footage} in "
            f"{total['wall_seconds']:.2f} s: {now['fps']:.1f} fps overall{real_time}"
        )
    if kept:
        return [
            *lines,
            f"nothing new; the report of an earlier command is in {folder / BATCH_PAGE_NAME}",
        ]
    return [*lines, f"report in {folder / BATCH_PAGE_NAME}"]


def failure_lines(failed: Sequence[ClipResult]) -> list[str]:
    """The failed clips with their reasons; a reason shared by several clips appears once."""
    by_reason: dict[str, list[str]] = {}
    for result in failed:
        by_reason.setdefault(result.reason, []).append(printable(str(result.clip.path)))
    single = {paths[0]: reason for reason, paths in by_reason.items() if len(paths) == 1}
    width = max(map(len, single), default=0)
    lines = [f"{path:<{width}}  {reason}" for path, reason in single.items()]
    for reason, paths in by_reason.items():
        if len(paths) > 1:
            lines.append(f"{counted(len(paths), 'clip')}: {reason}")
            lines += [f"  {path}" for path in paths[:_MOST_NAMED]]
            if len(paths) > _MOST_NAMED:
                lines.append(f"  and {len(paths) - _MOST_NAMED:,} more, see the report")
    return lines
