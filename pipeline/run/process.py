"""One run, from options to finished files: plan, take every segment through, join, report."""

from __future__ import annotations

import contextlib
import functools
import time
from pathlib import Path
from typing import Any

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
from pipeline.execution.journal import Journal
from pipeline.execution.launch import open_executor
from pipeline.frames.audit import Audit
from pipeline.frames.codecs import encoding_warnings
from pipeline.frames.scaled import annotated_info
from pipeline.frames.segment import OpenClip
from pipeline.frames.stats import RunStats
from pipeline.frames.task import RunSettings
from pipeline.inference.models import Models
from pipeline.inference.openvino import resolved_precision
from pipeline.media.carried import carried_of
from pipeline.media.frame import FrameSource, VideoInfo
from pipeline.media.still import require_picture_options
from pipeline.model.heads import require_all_covered, require_applicable, select_class_ids
from pipeline.model.prepare import PreparedModel
from pipeline.run.context import RunContext
from pipeline.run.identity import ModelIdentity, asked_key, detections_key, run_key
from pipeline.run.journaled import require_permission_to_discard, run_journaled
from pipeline.run.opening import open_clip, segments_of_run
from pipeline.run.outputs import (
    DETECTIONS_NAME,
    TRUTH_NAME,
    annotated_name,
    move_into_place,
    require_free_output,
    require_space,
)
from pipeline.run.over_time import boxes_over_time
from pipeline.run.passes import join, num_parts, take_passes
from pipeline.run.precision_audit import Int8Audits, audit_int8
from pipeline.run.report import (
    FinishedRun,
    Phases,
    audit_warning,
    build_report,
)
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
    config, journal = run.config, run.journal
    require_redactable(config)
    if config.track is not None:
        require_trackers()
    clip, selection, scan = open_clip(config, models, executor.cores, run.position, run.on_progress)
    with contextlib.closing(clip.source), run.position.failures_told():
        class_ids = _class_ids(config, clip.prepared)
        segments = segments_of_run(config, scan)
        del scan  # Its packets.
        infer, sha256 = selection.options.infer, clip.prepared.weights_sha256
        found = detections_key(config, sha256)
        asked = asked_key(config, found)
        key = run_key(config, segments, _identity(clip.prepared, infer), run.beat(Step.PREPARE))
        parts = num_parts(run, segments)
        _require_room(run, clip.source.info, key, parts)
        executor.prepare(clip, config, infer, len(segments))
        _note_what_is_left_out(config, clip.source)
        threads = config.encode.threads or selection.options.encoder_threads
        threads = journal.begin(key, parts, threads)
        settings = RunSettings(config, infer, threads, class_ids, clip.source.timeline)
        prepared_at = time.perf_counter()
        process = functools.partial(executor.run, clip)
        passes = take_passes(run, clip, process, settings, segments)
    frames_at = time.perf_counter()
    notes += join(run, clip, passes)
    if len(passes.detected.manifests) > 1:  # Of a short clip it is little.
        release_memory()
    run.watched.require_unchanged()
    stats = passes.stats()
    int8_audit = _audit(run, models, audits, clip, settings, stats)
    finished = FinishedRun(
        config=config,
        result_key=asked,
        detections_key=found,
        clip=clip,
        selection=selection,
        passes=passes,
        stats=stats,
        int8_audit=int8_audit,
        executor=executor.facts(),
        cores=executor.cores,
        at_once=executor.at_once or passes.detected.at_once,
        all_cores=executor.cores * (1 if executor.at_once else passes.detected.at_once),
        encoder_threads=threads,
        fingerprint=run.watched.fingerprint if config.clip else None,
        notes=notes,
        phases=Phases(
            prepare_seconds=prepared_at - started,
            frames_seconds=passes.seconds_reused
            + (frames_at - prepared_at - executor.waited_seconds),
            finish_seconds=time.perf_counter() - frames_at,
        ),
        judgement=_judged(config, clip.prepared, class_ids, journal.finished),
        boxes_over_time=boxes_over_time(
            read_detections(journal.finished / DETECTIONS_NAME), passes.detected.end_seconds
        ),
        annotated=_annotated(config, journal, clip.source.info, threads),
    )
    report = build_report(finished)
    write_report(report, journal.finished, passes.annotated.pictures)
    lines = read_detections(journal.finished / DETECTIONS_NAME)
    write_viewer(report, lines, played_source(config, clip.source), journal.finished)
    journal.begin_publishing()
    move_into_place(journal.finished, config.output_dir)
    journal.clear()
    return report


def _class_ids(config: ProcessConfig, prepared: PreparedModel) -> frozenset[int] | None:
    """The classes to keep; None for all. Raises UsageError for options that do not fit a model."""
    require_applicable(config.detect, prepared.head, in_tiles=config.tile is not None)
    class_ids = select_class_ids(config.detect, prepared.head.class_names)
    require_all_covered(config.redact, class_ids, prepared.head.class_names)
    return class_ids


def _audit(
    run: RunContext,
    models: Models,
    audits: Int8Audits,
    clip: OpenClip,
    settings: RunSettings,
    stats: RunStats,
) -> Audit | None:
    """Note what may be wrong with the result; return the audit of INT8, None in float."""
    config = run.config
    if other_threads := other_threads_warning(stats):
        note(other_threads)
    if config.adaptive and (warning := audit_warning(stats, config.least_agreement)):
        note(warning)
    return audit_int8(run, models, audits, clip, settings, stats.num_frames)


def _annotated(
    config: ProcessConfig, journal: Journal, info: VideoInfo, threads: int
) -> dict[str, Any] | None:
    if not config.video:
        return None
    return annotated_record(journal.finished / annotated_name(info), info, config.encode, threads)


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


def _note_what_is_left_out(config: ProcessConfig, source: FrameSource) -> None:
    """Note what is not kept of a clip. Raises UsageError for options that pictures do not have."""
    if source.info.is_picture:
        require_picture_options(config)
    elif config.clip is not None and config.video:
        timeline = source.timeline
        strange = timeline.notes if timeline else ()
        lost = source.streams_left_out(carried_of(config))
        for warning in (*strange, *lost, *encoding_warnings(source.info, config.encode)):
            note(warning)


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
