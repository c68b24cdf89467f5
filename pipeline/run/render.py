"""Draws the detections of an earlier run onto their clip: only the annotated file is written."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import time
from collections.abc import Callable, Generator, Iterable

from pipeline.core.config import InferOptions, ProcessConfig
from pipeline.core.cores import core_shares, limited_cores
from pipeline.core.detection_lines import read_detections
from pipeline.core.errors import InputError, UsageError
from pipeline.core.files import file_sha256, real_path
from pipeline.core.machine import available_cores, versions
from pipeline.core.memory import release_memory
from pipeline.core.notes import note
from pipeline.core.position import Position, Step
from pipeline.core.progress import CallersErrors, ProgressCallback, no_progress
from pipeline.execution.at_once import INFERRING_SOME, num_at_once
from pipeline.execution.processes import SideBySide
from pipeline.execution.render_process import RenderSegments
from pipeline.frames.ahead import MOST_IN_FLIGHT
from pipeline.frames.codecs import require_encodable
from pipeline.frames.render import RecordedLines, first_line, render_segment
from pipeline.frames.report_pictures import Picture
from pipeline.frames.scaled import annotated_info
from pipeline.frames.source import open_source, scan_source
from pipeline.frames.task import Manifest, RunSettings, SegmentTask
from pipeline.media.cut import cut_clip
from pipeline.media.frame import FrameSource
from pipeline.run.context import RunContext
from pipeline.run.join import join_annotated, note_what_is_left_out
from pipeline.run.journaled import require_permission_to_discard, run_journaled
from pipeline.run.outputs import (
    ANNOTATED_NAMES,
    DETECTIONS_NAME,
    HIGHLIGHTS_NAME,
    REPORT_JSON_NAME,
    REPORT_PAGE_NAME,
    VIEWER_DATA_NAME,
    VIEWER_PAGE_NAME,
    annotated_name,
    move_into_place,
    require_free_output,
    require_space,
)
from pipeline.run.recorded import RecordedRun, Rendered
from pipeline.run.report_files import Report, annotated_record, with_annotated, write_report
from pipeline.run.segments import ProcessTasks, take_segments
from pipeline.run.viewer.viewer import played_source, write_viewer


def render_clip(
    config: ProcessConfig,
    recorded: RecordedRun,
    on_progress: ProgressCallback = no_progress,
    position: Position | None = None,
) -> Rendered:
    """Draw recorded detections onto the clip of a config.

    config: with the deinterlace, segment_seconds, num_frames, start and end of the recorded run.
    The annotated file appears in its output folder when it is complete and checked; the report
    that is beside its detections there is brought up to date. Raises PipelineError, Interrupted for
    a KeyboardInterrupt; the finished segments are then kept, and the same call resumes from them.

    position: receives the current step and frame, for a supervising process.
    """
    started = time.perf_counter()

    def work(run: RunContext, notes: list[str]) -> Rendered:
        file, num_frames = _render(run, recorded, notes)
        return Rendered(file, num_frames, time.perf_counter() - started, tuple(notes))

    def require_free() -> None:
        _is_beside_its_report(config, recorded)
        require_free_output(config, ANNOTATED_NAMES)

    with CallersErrors(on_progress) as progress, limited_cores(config.cores):
        return run_journaled(config, progress, position or Position(), require_free, work)


def _render(run: RunContext, recorded: RecordedRun, notes: list[str]) -> tuple[str, int]:
    """Returns the name of the file and the number of its frames."""
    config = run.config
    if config.clip is None:
        raise UsageError("detections are drawn onto a clip or a picture")
    scan = scan_source(config, run.beat(Step.PREPARE))
    assert scan is not None
    source = open_source(config, available_cores(), scan.timeline)
    with contextlib.closing(source), run.position.failures_told():
        recorded.require_clip(source.info, run.watched.fingerprint)
        require_encodable(annotated_info(source.info, config.encode), config.encode)
        for warning in source.info.warnings:
            note(warning)
        note_what_is_left_out(config, source)
        segments = cut_clip(scan, config.segment_seconds, config.num_frames)
        settings = _begin(run, recorded, source, len(segments))
        process = _drawing(run, recorded, source, len(segments))
        taken = take_segments(run, source.info, process, settings, segments)
        recorded.require_frames(taken.num_frames)
        notes += join_annotated(run, source, taken)
    run.watched.require_unchanged()
    name = annotated_name(source.info)
    names = [name]
    if _is_beside_its_report(config, recorded):
        report = _write_report(run, recorded, settings, source, taken.pictures, notes)
        names = [VIEWER_DATA_NAME, VIEWER_PAGE_NAME, REPORT_JSON_NAME, REPORT_PAGE_NAME, name]
        if recorded.report.get("highlights") and report["highlights"] is None:
            names = [HIGHLIGHTS_NAME, *names]  # Cut from the file that is replaced.
    move_into_place(run.journal.finished, config.output_dir, names)
    run.journal.clear()
    return name, taken.num_frames


def _begin(
    run: RunContext, recorded: RecordedRun, source: FrameSource, num_segments: int
) -> RunSettings:
    """Begin the journal, if there is room. Raises InputError; nothing is discarded then."""
    config, journal = run.config, run.journal
    key = _key(config, recorded, num_segments)
    require_permission_to_discard(config, journal, key)
    kept_bytes = journal.num_bytes if journal.matches(key) else 0
    require_space(config, annotated_info(source.info, config.encode), kept_bytes)
    threads = journal.begin(key, num_segments, config.encode.threads or 1)
    return RunSettings(config, InferOptions(), threads, None, source.timeline)


def _drawing(
    run: RunContext, recorded: RecordedRun, source: FrameSource, num_segments: int
) -> ProcessTasks:
    """What draws segments: this process, or several side by side."""
    lines = RecordedLines(recorded.detections, recorded.class_names, recorded.covers)
    at_once = num_at_once(
        run.config, source.info, num_segments, INFERRING_SOME, lambda _: MOST_IN_FLIGHT
    )
    if at_once > 1:
        return functools.partial(_rendered_side_by_side, lines, at_once, run.position)
    return functools.partial(_rendered, source, lines, run.position)


def _write_report(
    run: RunContext,
    recorded: RecordedRun,
    settings: RunSettings,
    source: FrameSource,
    pictures: list[Picture],
    notes: list[str],
) -> Report:
    """Bring report and viewer up to date with the annotated file; returns the report."""
    config, folder, info = run.config, run.journal.finished, source.info
    threads = settings.encoder_threads
    made = annotated_record(folder / annotated_name(info), info, config.encode, threads)
    report = with_annotated(recorded.report, made, config.encode, config.draw, notes)
    write_report(report, folder, pictures)
    frames = read_detections(recorded.detections)
    write_viewer(report, frames, played_source(config, source), folder, config.output_dir)
    return report


def _is_beside_its_report(config: ProcessConfig, recorded: RecordedRun) -> bool:
    """Whether the output folder is that of the recorded run. Raises InputError for another's."""
    if not (config.output_dir / REPORT_JSON_NAME).exists():
        return False
    if real_path(config.output_dir / DETECTIONS_NAME) != real_path(recorded.detections):
        raise InputError(
            f"{config.output_dir}: contains the result of a run with other detections than "
            f"{recorded.detections}: choose another folder with --output-dir"
        )
    return True


def _rendered(
    source: FrameSource,
    lines: RecordedLines,
    position: Position,
    tasks: Iterable[SegmentTask],
    on_frames: Callable[[int], object],
) -> Generator[tuple[SegmentTask, Manifest], None, None]:
    for task in tasks:
        position.encoding.enter(Step.PREPARE)
        yield task, render_segment(source, lines, task, position, lambda: on_frames(1))
        if task.segment.end_pts is not None:  # Another one follows.
            release_memory()


def _rendered_side_by_side(
    lines: RecordedLines,
    at_once: int,
    position: Position,
    tasks: Iterable[SegmentTask],
    on_frames: Callable[[int], object],
) -> Generator[tuple[SegmentTask, Manifest], None, None]:
    tasks, starts = list(tasks), lines.seconds()
    if not tasks:
        return
    time_base = tasks[0].settings.timeline.time_base if tasks[0].settings.timeline else 0
    tasks = [
        dataclasses.replace(
            task, first_index=first_line(starts, float((task.segment.start_pts or 0) * time_base))
        )
        for task in tasks
    ]
    beat = functools.partial(position.encoding.enter, Step.WAIT_CLUSTER)
    work = RenderSegments(max(1, available_cores() // at_once), lines)
    config = tasks[0].settings.config
    with SideBySide(work, core_shares(at_once)) as processes:
        for number, notes in processes.results(tasks, on_frames, config, beat):
            for text in notes:
                note(text)
            yield tasks[number], Manifest.read(tasks[number].files.manifest)


def _key(config: ProcessConfig, recorded: RecordedRun, num_segments: int) -> str:
    """A hash of everything that the annotated file depends on."""
    known = {
        "rendered": file_sha256(recorded.detections),
        "classes": recorded.class_names,
        "source": recorded.fingerprint,
        "segments": num_segments,
        "encode": dataclasses.asdict(config.encode),
        "draw": dataclasses.asdict(config.draw),
        "redact": dataclasses.asdict(config.redact),
        "covers": recorded.covers and file_sha256(recorded.covers),
        "frames": [config.num_frames, config.deinterlace, config.segment_seconds],
        "slice": str(config.slice),
        "versions": versions(),
    }
    return hashlib.sha256(json.dumps(known, default=str).encode()).hexdigest()
