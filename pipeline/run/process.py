"""One run, from options to finished files: plan, take every segment through, join, report."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Sequence
from pathlib import Path

from pipeline.core.config import InferOptions, ProcessConfig
from pipeline.core.cores import limited_cores
from pipeline.core.detection_lines import read_detections
from pipeline.core.library_threads import one_library_thread
from pipeline.core.memory import release_memory
from pipeline.core.notes import note
from pipeline.core.position import Position, Step
from pipeline.core.progress import CallersErrors, ProgressCallback, no_progress
from pipeline.core.redactable import require_redactable
from pipeline.core.typed import converted
from pipeline.execution.executor import Executor
from pipeline.execution.launch import open_executor
from pipeline.frames.scaled import annotated_info
from pipeline.frames.segment import OpenClip
from pipeline.frames.stats import RunStats
from pipeline.frames.task import RunSettings
from pipeline.inference.models import Models
from pipeline.inference.openvino import resolved_precision
from pipeline.inference.selection import Selection
from pipeline.media.frame import Segment, VideoInfo
from pipeline.model.heads import require_all_covered, require_applicable, select_class_ids
from pipeline.model.prepare import PreparedModel
from pipeline.run.context import RunContext
from pipeline.run.identity import ModelIdentity, request_keys, run_key
from pipeline.run.join import note_what_is_left_out
from pipeline.run.journaled import require_permission_to_discard, run_journaled
from pipeline.run.opening import open_clip
from pipeline.run.outputs import (
    DETECTIONS_NAME,
    TRUTH_NAME,
    annotated_name,
    move_into_place,
    require_free_output,
    require_space,
)
from pipeline.run.over_time import boxes_over_time
from pipeline.run.passes import Passes, join, num_parts, take_passes
from pipeline.run.precision_audit import Int8Audits, audit_int8
from pipeline.run.report import Findings, FinishedRun, Phases, audit_warning, build_report
from pipeline.run.report_files import Report, annotated_record, write_report
from pipeline.run.step_figures import other_threads_warning
from pipeline.run.tracks.tracker import require_trackers
from pipeline.run.viewer.viewer import played_source, write_viewer
from pipeline.synthetic.judge import Judgement, judge
from pipeline.synthetic.sprites import CLASS_NAMES


def process_video(
    config: ProcessConfig,
    on_progress: ProgressCallback = no_progress,
    position: Position | None = None,
    models: Models | None = None,
    executor: Executor | None = None,
    audits: Int8Audits | None = None,
) -> Report:
    """Annotate a clip: writes annotated.mp4, detections.jsonl, the viewer and the report.

    Without `config.video`, there is no annotated.mp4.
    For the synthetic scene also truth.jsonl; a model of its classes is evaluated on it. Files
    appear under their final names only when they are complete and checked. Raises PipelineError,
    Interrupted for a KeyboardInterrupt, and exceptions of on_progress unchanged; the finished
    segments are then kept, and the same run resumes from them.

    position: receives the current step and frame, for a supervising process.
    models: keeps the model loaded for the next run.
    executor: processes the segments; None opens that of the config for this run.
    audits: of all clips of a batch in INT8.
    """
    if models is None:
        with Models() as own:
            return process_video(config, on_progress, position, own, executor, audits)
    config = converted("config", config, ProcessConfig)
    position, audits = position or Position(), audits or Int8Audits()
    with CallersErrors(on_progress) as progress, limited_cores(config.cores):
        if executor is not None:
            return _process_on(executor, models, audits, config, progress, position)
        with open_executor(config.cluster, models, position) as opened:
            return _process_on(opened, models, audits, config, progress, position)


@one_library_thread()  # Before the frames too: threads of BLAS go on spinning for a while.
def _process_on(
    executor: Executor,
    models: Models,
    audits: Int8Audits,
    config: ProcessConfig,
    on_progress: ProgressCallback,
    position: Position,
) -> Report:
    started = time.perf_counter()

    def work(run: RunContext, notes: list[str]) -> Report:
        return _process(run, executor, models, audits, notes, started)

    require_free = functools.partial(require_free_output, config)
    return run_journaled(config, on_progress, position, require_free, work)


def _process(
    run: RunContext,
    executor: Executor,
    models: Models,
    audits: Int8Audits,
    notes: list[str],
    started: float,
) -> Report:
    """The phases of a run. notes: notes of the phases are appended."""
    config = run.config
    _require_possible(config)
    clip, selection, segments = open_clip(
        config, models, executor.cores, run.position, run.on_progress
    )
    with contextlib.closing(clip.source), run.position.failures_told():
        keys = request_keys(config, clip.prepared.weights_sha256)
        settings = _begin(run, executor, clip, selection, segments)
        prepared_at = time.perf_counter()
        process = functools.partial(executor.run, clip)
        passes = take_passes(run, clip, process, settings, segments)
    frames_at = time.perf_counter()
    notes += join(run, clip, passes)
    if len(passes.detected.manifests) > 1:  # Of a short clip it is little.
        release_memory()
    run.watched.require_unchanged()
    stats = passes.stats()
    _note_doubts(config, stats)
    finished = FinishedRun(
        settings=settings,
        keys=keys,
        clip=clip,
        selection=selection,
        executor=executor,
        passes=passes,
        stats=stats,
        fingerprint=run.watched.fingerprint if config.clip else None,
        int8_audit=audit_int8(run, models, audits, clip, settings, stats.num_frames),
        findings=_findings(run, clip, settings, passes),
        notes=notes,
        phases=Phases(
            prepare_seconds=prepared_at - started,
            frames_seconds=passes.seconds_reused
            + (frames_at - prepared_at - executor.waited_seconds),
            finish_seconds=time.perf_counter() - frames_at,
        ),
    )
    return _publish(run, finished)


def _require_possible(config: ProcessConfig) -> None:
    """Raise UsageError for what cannot be done, before anything is opened."""
    require_redactable(config)
    if config.track is not None:
        require_trackers()


def _begin(
    run: RunContext,
    executor: Executor,
    clip: OpenClip,
    selection: Selection,
    segments: Sequence[Segment],
) -> RunSettings:
    """Begin the journal and prepare the executor, if the options fit and there is room.

    Raises PipelineError; nothing that was kept is discarded then.
    """
    config, infer = run.config, selection.options.infer
    class_ids = _class_ids(config, clip.prepared)
    key = run_key(config, segments, _identity(clip.prepared, infer), run.beat(Step.PREPARE))
    parts = num_parts(run, segments)
    _require_room(run, clip.source.info, key, parts)
    executor.prepare(clip, config, infer, len(segments))
    note_what_is_left_out(config, clip.source)
    threads = config.encode.threads or selection.options.encoder_threads
    threads = run.journal.begin(key, parts, threads)
    return RunSettings(config, infer, threads, class_ids, clip.source.timeline)


def _class_ids(config: ProcessConfig, prepared: PreparedModel) -> frozenset[int] | None:
    """The classes to keep; None for all. Raises UsageError for options that do not fit a model."""
    require_applicable(config.detect, prepared.head, in_tiles=config.tile is not None)
    class_ids = select_class_ids(config.detect, prepared.head.class_names)
    require_all_covered(config.redact, class_ids, prepared.head.class_names)
    return class_ids


def _note_doubts(config: ProcessConfig, stats: RunStats) -> None:
    """Note what may be wrong with the result or its measurements."""
    if other_threads := other_threads_warning(stats):
        note(other_threads)
    if config.adaptive and (warning := audit_warning(stats, config.least_agreement)):
        note(warning)


def _findings(run: RunContext, clip: OpenClip, settings: RunSettings, passes: Passes) -> Findings:
    """What the report contains of the finished files."""
    config, finished, info = run.config, run.journal.finished, clip.source.info
    annotated = None
    if config.video:
        file, threads = finished / annotated_name(info), settings.encoder_threads
        annotated = annotated_record(file, info, config.encode, threads)
    lines = read_detections(finished / DETECTIONS_NAME)
    return Findings(
        judgement=_judged(config, clip.prepared, settings.class_ids, finished),
        boxes_over_time=boxes_over_time(lines, passes.detected.end_seconds),
        annotated=annotated,
    )


def _publish(run: RunContext, finished: FinishedRun) -> Report:
    """Write report and viewer, and move all files to their final names."""
    folder, source = run.journal.finished, finished.clip.source
    report = build_report(finished)
    write_report(report, folder, finished.passes.annotated.pictures)
    lines = read_detections(folder / DETECTIONS_NAME)
    write_viewer(report, lines, played_source(run.config, source), folder)
    run.journal.begin_publishing()
    move_into_place(folder, run.config.output_dir)
    run.journal.clear()
    return report


def _require_room(run: RunContext, info: VideoInfo, key: str, num_segments: int) -> None:
    """Raise InputError if the output cannot be written, or exists and may not be replaced."""
    config, journal = run.config, run.journal
    if not (journal.publishing and journal.matches(key)):
        require_free_output(config)
    require_permission_to_discard(config, journal, key)
    if journal.matches(key):
        require_space(
            config,
            annotated_info(info, config.encode),
            journal.num_bytes,
            journal.num_done / num_segments,
        )
    else:
        require_space(config, annotated_info(info, config.encode))


def _identity(prepared: PreparedModel, infer: InferOptions) -> ModelIdentity:
    quantization = prepared.quantization
    return ModelIdentity(
        sha256=prepared.weights_sha256,
        int8=quantization.folder.name if quantization else None,
        engine=infer.engine,
        device=infer.device,
        precision="int8" if quantization else resolved_precision(infer.precision, infer.device),
        batch=infer.batch,
    )


def _judged(
    config: ProcessConfig,
    prepared: PreparedModel,
    class_ids: frozenset[int] | None,
    finished: Path,
) -> Judgement | None:
    """The accuracy; None without ground truth, or if the model has other classes."""
    if config.scene is None or prepared.head.class_names != CLASS_NAMES:
        return None
    return judge(finished / DETECTIONS_NAME, finished / TRUTH_NAME, class_ids)
