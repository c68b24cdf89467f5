"""One run, from options to finished files: plan, take every segment through, join, report."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import shutil
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from pipeline.core.config import ProcessConfig, SyntheticOptions
from pipeline.core.disk_space import disk_full, is_disk_full, num_bytes_in
from pipeline.core.errors import (
    InputError,
    Interrupted,
    PipelineError,
    SourceChanged,
    as_pipeline_error,
)
from pipeline.core.notes import collected_notes, note
from pipeline.core.position import Beat, Position, Step
from pipeline.core.progress import CallersErrors, Progress, ProgressCallback, no_progress
from pipeline.core.text import counted
from pipeline.core.typed import converted
from pipeline.core.watched import WatchedFile
from pipeline.execution.executor import Executor
from pipeline.execution.journal import Journal, open_journal, what_is_kept
from pipeline.execution.launch import open_executor
from pipeline.frames.encode import encoder_settings, require_encodable
from pipeline.frames.segment import Manifest, OpenClip, SegmentFiles, SegmentTask, open_source
from pipeline.frames.stats import RunStats
from pipeline.inference.models import Models
from pipeline.inference.openvino import resolved_precision
from pipeline.inference.selection import Selection, select
from pipeline.media.cut import plan_clip, plan_synthetic
from pipeline.media.frame import WHOLE, FrameSource, Segment, SourceFaults, VideoInfo
from pipeline.media.mux import mux, verify
from pipeline.media.scan import ClipScan, scan_clip
from pipeline.media.still import picture_settings, require_picture_options, verify_picture
from pipeline.media.streams import stream_warnings
from pipeline.model.heads import select_class_ids
from pipeline.model.prepare import PreparedModel
from pipeline.model.weights import find_weights
from pipeline.run.identity import result_key, run_key
from pipeline.run.outputs import (
    DETECTIONS_NAME,
    TRUTH_NAME,
    annotated_name,
    join_lines,
    move_into_place,
    require_free_output,
    require_space,
)
from pipeline.run.report import Phases, Report, build_report, other_threads_warning, write_report
from pipeline.synthetic.judge import Judgement, judge
from pipeline.synthetic.sprites import CLASS_NAMES


def process_video(
    config: ProcessConfig,
    on_progress: ProgressCallback = no_progress,
    position: Position | None = None,
    models: Models | None = None,
    executor: Executor | None = None,
) -> Report:
    """Annotate a clip: writes annotated.mp4, detections.jsonl, report.json and report.html.

    For the synthetic scene also truth.jsonl; a model that knows its things is judged by it.
    Nothing appears under a final name before it is complete and was checked. Raises
    PipelineError, Interrupted for a KeyboardInterrupt, and what on_progress raises as it is; then
    nothing of the run is left but the segments that are done, from which the same run goes on.

    position: is told where the work is, for another process that watches it.
    models: keeps the model for the next run that is given the same. executor: who works on the
    segments; None opens what the config asks for, for this run.
    """
    if models is None:
        with Models() as own:
            return process_video(config, on_progress, position, own, executor)
    config = converted("config", config, ProcessConfig)
    position = position or Position()
    with CallersErrors(on_progress) as progress:
        if executor is not None:
            return _process_clip(config, progress, position, models, executor)
        with open_executor(config.cluster, models, position) as opened:
            return _process_clip(config, progress, position, models, opened)


def _process_clip(
    config: ProcessConfig,
    on_progress: ProgressCallback,
    position: Position,
    models: Models,
    executor: Executor,
) -> Report:
    started, frames = time.perf_counter(), _LatestFrames(on_progress)
    try:
        with (
            collected_notes() as notes,
            open_journal(config.output_dir, config.source) as journal,
        ):
            if not journal.publishing:
                require_free_output(config)
            try:
                return _process(config, journal, started, frames, position, models, executor, notes)
            except (PipelineError, OSError) as cause:
                error = cause if isinstance(cause, PipelineError) else as_pipeline_error(cause)
                if error.step is not None:
                    error.file = config.source_name
                if is_disk_full(error, config.output_dir):
                    error = _disk_full(config, journal, frames.latest)
                if isinstance(error, SourceChanged):
                    journal.discard()  # They are of a clip that is no more.
                if kept := what_is_kept(journal):
                    error.args = (f"{error.args[0]}; {kept}",)
                if error is cause:
                    raise
                raise error from cause
            except KeyboardInterrupt as error:
                kept = what_is_kept(journal) or "no output was written"
                raise Interrupted(f"interrupted; {kept}") from error
    except OSError as error:
        raise InputError(f"{error.filename or config.output_dir}: {error.strerror}") from error


class _LatestFrames:
    """Passes progress on, and keeps the latest that was made with frames."""

    def __init__(self, on_progress: ProgressCallback) -> None:
        self.latest: Progress | None = None
        self._on_progress = on_progress

    def __call__(self, progress: Progress) -> None:
        if progress.stage == "frames":
            self.latest = progress
        self._on_progress(progress)


def _disk_full(config: ProcessConfig, journal: Journal, frames: Progress | None) -> InputError:
    """The need follows from what the frames done so far take; else from the size of the source.

    Segments and the result made of them are on the disk at the same time.
    """
    kept, passing = journal.num_bytes, num_bytes_in([journal.making, journal.finished])
    if frames is not None and frames.done:
        whole = (kept + num_bytes_in([journal.making])) / frames.done
        whole *= max(frames.done, frames.total or 0)
    else:
        source = config.source_file
        whole = source.stat().st_size if source is not None and source.exists() else passing
    return disk_full(config.output_dir, max(2 * whole - kept, passing), passing)


@dataclass(frozen=True, slots=True)
class _Taken:
    """The segments of a clip, all done.

    reused: the numbers of those that an earlier run had done.
    began_seconds: when each began, counted from the first, as if this run and those before it
        had been one.
    """

    manifests: list[Manifest]
    reused: frozenset[int]
    began_seconds: list[float]

    @property
    def at_once(self) -> int:
        """How many segments were worked on at the same time, at the most."""
        begins, ends = sorted(self.began_seconds), sorted(self._done_seconds)
        return max(n - bisect_right(ends, begin) for n, begin in enumerate(begins, 1))

    @property
    def wall_seconds(self) -> float:
        """From when the first began to when the last was done."""
        return max(self._done_seconds) - min(self.began_seconds)

    @property
    def _done_seconds(self) -> list[float]:
        return [
            began + manifest.stats.frames_wall_seconds
            for began, manifest in zip(self.began_seconds, self.manifests, strict=True)
        ]

    @property
    def end_seconds(self) -> float:
        return max(manifest.end_seconds for manifest in self.manifests)

    @property
    def was_cut(self) -> bool:
        """Whether there may be more frames than were asked for."""
        return not self.manifests[-1].ended


def _process(
    config: ProcessConfig,
    journal: Journal,
    started: float,
    on_progress: ProgressCallback,
    position: Position,
    models: Models,
    executor: Executor,
    notes: list[str],
) -> Report:
    beat = functools.partial(position.encoding.enter, Step.PREPARE)
    watched = WatchedFile(config.source_file)
    clip, selection, scan = _open(config, executor.cores, models, on_progress, position)
    with contextlib.closing(clip.source), position.failures_told():
        info, plan = clip.source.info, selection.plan
        class_ids = select_class_ids(config.detect, clip.prepared.layout)
        segments = _plan(config, scan, executor)
        del scan  # Its packets.
        asked = result_key(config, clip.prepared.weights_sha256)
        quantization, infer = clip.prepared.quantization, plan.infer
        key = run_key(
            config,
            segments,
            clip.prepared.weights_sha256,
            quantization.folder.name if quantization else None,
            infer,
            "int8" if quantization else resolved_precision(infer.precision, infer.device),
            beat,
        )
        if not (journal.publishing and journal.matches(key)):
            require_free_output(config)
        _require_permission_to_discard(config, journal, key)
        if journal.matches(key):
            share_kept = journal.num_done / len(segments)
            require_space(config, info, journal.num_bytes, share_kept)
        else:
            require_space(config, info)
        selected = dataclasses.replace(config, infer=plan.infer)
        executor.prepare(clip, selected)
        if info.is_picture:
            require_picture_options(config)
        elif isinstance(config.source, Path):
            timeline = clip.source.timeline
            left_out, strange = (timeline.left_out, timeline.notes) if timeline else ({}, ())
            for warning in (*strange, *stream_warnings(config.source, config.limits, left_out)):
                note(warning)
        threads = config.encode.threads or plan.encoder_threads
        threads = journal.begin(key, len(segments), threads)
        prepared_at = time.perf_counter()
        taken = _take_segments(
            clip, selected, segments, threads, class_ids, journal, executor, on_progress, watched
        )
    frames_at = time.perf_counter()
    beat = functools.partial(position.encoding.enter, Step.JOIN)
    notes += _join(config, clip.source, taken, journal, beat)
    watched.require_unchanged()
    stats, faults = RunStats(), SourceFaults()
    for manifest, began_seconds in zip(taken.manifests, taken.began_seconds, strict=True):
        stats.add(manifest.stats, began_seconds)
        faults.add(manifest.faults)
    if other_threads := other_threads_warning(stats):
        note(other_threads)
    notes += _notes_on_size(info, faults)
    before_seconds = sum(taken.manifests[i].stats.frames_wall_seconds for i in taken.reused)
    report = build_report(
        config=config,
        key=asked,
        info=info,
        faults=faults,
        prepared=clip.prepared,
        selection=selection,
        engine={**taken.manifests[-1].engine, **executor.facts()},
        cores=executor.cores,
        workers=1 if executor.in_order else taken.at_once,
        frames_seconds=stats.frames_wall_seconds if executor.in_order else taken.wall_seconds,
        encoder_settings=picture_settings(info)
        if info.is_picture
        else encoder_settings(config.encode, threads),
        stats=stats,
        segments={
            "number": len(segments),
            "done_before": len(taken.reused),
            "frames_done_before": sum(taken.manifests[i].num_frames for i in taken.reused),
        },
        notes=notes,
        phases=Phases(
            prepare_seconds=prepared_at - started,
            frames_seconds=before_seconds + frames_at - prepared_at,
            finish_seconds=time.perf_counter() - frames_at,
        ),
        judgement=_judged(config, clip.prepared, class_ids, journal.finished),
        annotated=journal.finished / annotated_name(info),
    )
    pictures = [picture for manifest in taken.manifests for picture in manifest.pictures]
    write_report(report, journal.finished, pictures)
    journal.begin_publishing()
    move_into_place(journal.finished, config.output_dir)
    journal.clear()
    return report


def _require_permission_to_discard(config: ProcessConfig, journal: Journal, key: str) -> None:
    kept = journal.num_kept_otherwise(key)
    if not kept:
        return
    segments = f"{counted(kept, 'segment')} of an interrupted run with another input, other "
    if not config.overwrite:
        raise InputError(
            f"{config.output_dir}: {segments}options or versions "
            f"{'is' if kept == 1 else 'are'} kept: the command of that run resumes it, "
            "--overwrite discards it"
        )
    note(f"{segments}options or versions discarded, as --overwrite asks for")


def _open(
    config: ProcessConfig,
    cores: int,
    models: Models,
    on_progress: ProgressCallback,
    position: Position,
) -> tuple[OpenClip, Selection, ClipScan | None]:
    """The clip and the model for it, how it is to be run with so many cores, and its packets."""
    with contextlib.ExitStack() as stack:
        beat = functools.partial(position.encoding.enter, Step.PREPARE)
        scan = _scan(config, beat)
        timeline = scan.timeline if scan else None
        source = stack.enter_context(contextlib.closing(open_source(config, cores, timeline)))
        stack.enter_context(position.failures_told())
        for warning in source.info.warnings:
            note(warning)
        require_encodable(source.info, config.encode)
        weights = find_weights(config.weights, on_progress, config.default_model)
        prepared = models.prepare(weights, source.info.size_wh, config.imgsz, on_progress)
        selection = select(config.infer, prepared, config.encode, cores)
        if selection.plan.infer.precision == "int8":
            from pipeline.frames.calibration import calibration_for  # A run in float needs none.

            calibration = calibration_for(config, source.info.size_wh)
            prepared = models.quantize(prepared, config.imgsz, calibration, on_progress)
        stack.pop_all()
    return OpenClip(source, prepared), selection, scan


def _scan(config: ProcessConfig, beat: Beat) -> ClipScan | None:
    if isinstance(config.source, SyntheticOptions):
        return None
    return scan_clip(config.source, config.limits, config.num_frames, beat)


def _plan(config: ProcessConfig, scan: ClipScan | None, executor: Executor) -> tuple[Segment, ...]:
    source, num_frames = config.source, config.num_frames
    all_frames = source.num_frames if isinstance(source, SyntheticOptions) else None
    if num_frames not in (None, all_frames) and not executor.in_order:
        return (WHOLE,)  # How many frames of a segment to take, only those before it can tell.
    if isinstance(source, SyntheticOptions):
        return plan_synthetic(source.num_frames, source.frame_rate, config.segment_seconds)
    assert scan is not None
    return plan_clip(scan, config.segment_seconds, num_frames)


def _take_segments(
    clip: OpenClip,
    config: ProcessConfig,
    segments: Sequence[Segment],
    encoder_threads: int,
    class_ids: frozenset[int] | None,
    journal: Journal,
    executor: Executor,
    on_progress: ProgressCallback,
    watched: WatchedFile,
) -> _Taken:
    """Have every segment done that is not yet; config: with the selected infer options."""
    info = clip.source.info
    known = [n for n in (config.num_frames, info.num_frames_expected) if n is not None]
    expected = min(known, default=None)
    done: dict[int, Manifest] = {}
    reused: set[int] = set()
    arrived_seconds: dict[int, float] = {}
    num_frames_done = num_frames_before = 0
    started = time.perf_counter()

    def report_frames(number: int) -> None:
        nonlocal num_frames_done
        num_frames_done += number
        on_progress(Progress("frames", num_frames_done, expected))

    def add(number: int, manifest: Manifest) -> None:
        nonlocal num_frames_before
        num_frames_before += manifest.num_frames
        done[number] = manifest

    def tasks() -> Iterator[SegmentTask]:
        for segment in segments:
            left = None if config.num_frames is None else config.num_frames - num_frames_before
            if left == 0:
                return
            manifest = _kept(journal, segment.number)
            if manifest is not None:
                add(segment.number, manifest)
                reused.add(segment.number)
                report_frames(manifest.num_frames)
                continue
            yield SegmentTask(
                config=config,
                segment=segment,
                files=SegmentFiles(journal.making, segment.number, info.annotated_suffix),
                first_index=num_frames_before if executor.in_order else _first_index(segment, info),
                num_frames=left,
                encoder_threads=encoder_threads,
                class_ids=class_ids,
                timeline=clip.source.timeline,
            )

    for task, manifest in executor.run(clip, tasks(), report_frames):
        watched.require_unchanged()
        manifest.write(task.files.manifest)
        journal.add(task.segment.number, task.files.existing())
        add(task.segment.number, manifest)
        arrived_seconds[task.segment.number] = time.perf_counter() - started
    return _Taken(
        [done[number] for number in sorted(done)],
        frozenset(reused),
        _began_seconds(done, arrived_seconds),
    )


def _began_seconds(done: dict[int, Manifest], arrived_seconds: dict[int, float]) -> list[float]:
    """When each segment began: those that had been done, one after the other, then the others."""
    began, before_seconds = {}, 0.0
    for number in sorted(done.keys() - arrived_seconds.keys()):
        began[number] = before_seconds
        before_seconds += done[number].stats.frames_wall_seconds
    for number, seconds in arrived_seconds.items():
        took_seconds = done[number].stats.frames_wall_seconds
        began[number] = before_seconds + max(0.0, seconds - took_seconds)
    return [began[number] for number in sorted(done)]


def _first_index(segment: Segment, info: VideoInfo) -> int:
    """About how many frames come before a segment."""
    if segment.start_pts is None or not info.frame_rate:
        return 0
    return max(0, round((segment.start_pts - info.start_pts) * info.time_base * info.frame_rate))


def _kept(journal: Journal, number: int) -> Manifest | None:
    """What an earlier run found of a segment; None if it has to be done."""
    if not journal.has(number):
        return None
    try:
        return Manifest.read(SegmentFiles(journal.folder, number).manifest)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # Written by another version.


def _join(
    config: ProcessConfig,
    source: FrameSource,
    taken: _Taken,
    journal: Journal,
    beat: Beat,
) -> list[str]:
    """Make the whole clip's files of those of its segments; returns notes for the report."""
    info = source.info
    suffix = info.annotated_suffix
    parts = [SegmentFiles(journal.folder, n, suffix) for n in range(len(taken.manifests))]
    counts = [manifest.num_frames for manifest in taken.manifests]
    finished = journal.finished
    annotated = finished / annotated_name(info)
    notes: list[str] = []
    if info.is_picture:
        shutil.copyfile(parts[0].annotated, annotated)
        verify_picture(annotated, info)
    else:
        notes += mux(
            [part.annotated for part in parts if part.annotated.exists()],
            config.source if isinstance(config.source, Path) else None,
            annotated,
            taken.end_seconds if taken.was_cut else None,
            config.limits,
            beat,
            source.timeline,
        )
        verify(annotated, sum(counts), taken.end_seconds, _times(taken, info), beat)
    if not taken.was_cut:
        notes += _notes_on_length(source, sum(counts))
    join_lines([part.detections for part in parts], counts, finished / DETECTIONS_NAME)
    if config.scene:
        join_lines([part.truth for part in parts], counts, finished / TRUTH_NAME)
    return notes


def _times(taken: _Taken, info: VideoInfo) -> dict[int, Fraction]:
    """When some frames of the clip are shown, in seconds, by their numbers."""
    begins = itertools.accumulate((m.num_frames for m in taken.manifests), initial=0)
    return {
        begin + index: pts * info.time_base
        for begin, manifest in zip(begins, taken.manifests, strict=False)
        for index, pts in manifest.times
    }


def _judged(
    config: ProcessConfig,
    prepared: PreparedModel,
    class_ids: frozenset[int] | None,
    finished: Path,
) -> Judgement | None:
    """None where the truth is not known, or the model knows other things."""
    if config.scene is None or prepared.layout.class_names != CLASS_NAMES:
        return None
    return judge(finished / DETECTIONS_NAME, finished / TRUTH_NAME, class_ids)


def _notes_on_size(info: VideoInfo, faults: SourceFaults) -> list[str]:
    """What became of pictures that are not of the clip's size."""
    if not faults.resized_frames:
        return []
    width, height = info.size_wh
    return [
        f"the size of the picture changes: {faults.resized_frames} frames of another size were "
        f"scaled to {width}x{height}"
    ]


def _notes_on_length(source: FrameSource, num_frames: int) -> list[str]:
    """What a clip that was cut off claims to hold beyond what could be read."""
    claimed, timeline = source.info.num_frames_header, source.timeline
    if claimed and timeline:
        # Neither frames that an edit list hides are missing, nor those that were never recorded.
        claimed = timeline.num_frames if timeline.is_complete else claimed - timeline.num_hidden
    if claimed and claimed > num_frames:
        return [f"the clip claims {claimed} frames, {num_frames} could be read"]
    return []
