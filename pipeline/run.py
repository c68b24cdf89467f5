"""One run, from options to finished files: set up, take the frames through, join, report."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TextIO

from pipeline.config import DetectOptions, ModelName, ProcessConfig, SyntheticOptions
from pipeline.decode import VideoReader
from pipeline.encode import VideoEncoder
from pipeline.engine import Engine
from pipeline.errors import InputError, Interrupted, UsageError
from pipeline.frames import FrameSource, VideoInfo
from pipeline.heads import HeadLayout
from pipeline.infer import load_engine
from pipeline.judge import Judgement, judge
from pipeline.letterbox import letterbox
from pipeline.loop import FrameLoop
from pipeline.machine import available_cores, process_cpu_seconds
from pipeline.model.prepare import PreparedModel, prepare_model
from pipeline.model.weights import find_weights
from pipeline.mux import mux, verify
from pipeline.notes import collected_notes
from pipeline.progress import ProgressCallback, no_progress
from pipeline.report import JSON_NAME, PAGE_NAME, Phases, Report, build_report, write_report
from pipeline.scene import Truth
from pipeline.sprites import CLASS_NAMES
from pipeline.stats import RunStats, thread_ids, threads_cpu_seconds
from pipeline.synthetic import SyntheticSource
from pipeline.throughput.selection import Selection, select
from pipeline.truth import truth_record

ANNOTATED_NAME = "annotated.mp4"
DETECTIONS_NAME = "detections.jsonl"
TRUTH_NAME = "truth.jsonl"
_OUTPUT_NAMES = (TRUTH_NAME, DETECTIONS_NAME, JSON_NAME, PAGE_NAME, ANNOTATED_NAME)

OnTruth = Callable[[int, Truth], None]


def process_video(config: ProcessConfig, on_progress: ProgressCallback = no_progress) -> Report:
    """Annotate a clip: writes annotated.mp4, detections.jsonl, report.json and report.html.

    For the synthetic scene also truth.jsonl; a model that knows its things is judged by it.
    Nothing appears under a final name before it is complete and was checked. Raises
    PipelineError, and Interrupted for a KeyboardInterrupt; nothing of the run is left then.
    """
    started = time.perf_counter()
    _require_free_output(config)
    try:
        config.output_dir.mkdir(parents=True, exist_ok=True)
        scratch_name = tempfile.mkdtemp(dir=config.output_dir, prefix=".partial-")
    except OSError as error:
        raise InputError(f"{config.output_dir}: cannot write there ({error.strerror})") from error
    try:
        with collected_notes() as notes:
            return _process(config, Path(scratch_name), started, on_progress, notes)
    except KeyboardInterrupt as error:
        raise Interrupted("interrupted; no output was written") from error
    except OSError as error:
        raise InputError(f"{error.filename or config.output_dir}: {error.strerror}") from error
    finally:
        shutil.rmtree(scratch_name, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class _Setup:
    """What a run works with; the loop's decoding thread closes the source."""

    source: FrameSource
    prepared: PreparedModel
    selection: Selection
    engine: Engine
    class_ids: frozenset[int] | None
    encoder: VideoEncoder
    cores: int
    encoder_threads: int
    decode_workers: frozenset[int]
    encode_workers: frozenset[int]


def _set_up(
    config: ProcessConfig, video: Path, on_truth: OnTruth | None, on_progress: ProgressCallback
) -> _Setup:
    cores = available_cores()
    threads_before = thread_ids()
    source = _open_source(config, max(1, cores // 2), on_truth)
    decode_workers = thread_ids() - threads_before
    try:
        default: ModelName = "demo" if config.scene else "official"
        weights = find_weights(config.weights, on_progress, default)
        prepared = prepare_model(weights, source.info.size_wh, config.imgsz, on_progress)
        class_ids = select_class_ids(config.detect, prepared.layout)
        selection = select(config.infer, prepared, config.encode)
        if selection.plan.infer.precision == "int8":
            prepared = _quantized(config, prepared, source, on_progress)
        engine = load_engine(prepared, selection.plan.infer)
        threads_before = thread_ids()
        encoder_threads = config.encode.threads or selection.plan.encoder_threads
        encoder = VideoEncoder(video, source.info, config.encode, num_threads=encoder_threads)
        encode_workers = thread_ids() - threads_before
    except BaseException:
        source.close()
        raise
    return _Setup(
        source=source,
        prepared=prepared,
        selection=selection,
        engine=engine,
        class_ids=class_ids,
        encoder=encoder,
        cores=cores,
        encoder_threads=encoder_threads,
        decode_workers=decode_workers,
        encode_workers=encode_workers,
    )


def _process(
    config: ProcessConfig,
    scratch: Path,
    started: float,
    on_progress: ProgressCallback,
    notes: list[str],
) -> Report:
    video, jsonl, truth, annotated = (
        scratch / name for name in ("video.mp4", DETECTIONS_NAME, TRUTH_NAME, ANNOTATED_NAME)
    )
    with contextlib.ExitStack() as files:
        results = files.enter_context(jsonl.open("w", encoding="utf-8"))
        on_truth = None
        if config.scene:
            lines = files.enter_context(truth.open("w", encoding="utf-8"))
            on_truth = functools.partial(_write_truth, lines, config.scene.frame_rate)
        setup = _set_up(config, video, on_truth, on_progress)
        stats, encoder = RunStats(), setup.encoder
        prepared_at, cpu_before = time.perf_counter(), process_cpu_seconds()
        try:
            loop = FrameLoop(
                source=setup.source,
                engine=setup.engine,
                prepared=setup.prepared,
                box=letterbox(setup.source.info.size_wh, setup.prepared.input_wh),
                detect=config.detect,
                class_ids=setup.class_ids,
                num_frames=config.num_frames,
                every=config.every,
                reuse_duplicates=config.reuse_duplicates,
                encoder=encoder,
                results=results,
                stats=stats,
                on_progress=on_progress,
            )
            loop.run()
            stats.decode_workers_cpu_seconds = threads_cpu_seconds(setup.decode_workers)
            stats.encode_workers_cpu_seconds = threads_cpu_seconds(setup.encode_workers)
            stats.frames_cpu_seconds = process_cpu_seconds() - cpu_before
            stats.frames_wall_seconds = time.perf_counter() - prepared_at
            encoder.close()
        finally:
            encoder.abandon()
    frames_at = time.perf_counter()
    source_path = config.source if isinstance(config.source, Path) else None
    cut = config.num_frames is not None and stats.num_frames == config.num_frames
    notes += mux(video, source_path, annotated, loop.end_seconds if cut else None)
    verify(annotated, stats.num_frames, loop.end_seconds)
    if not cut:
        notes += _notes_on_length(setup.source.info, stats.num_frames)
    for finished in (annotated, jsonl):
        _flush_to_disk(finished)
    phases = Phases(
        prepare_seconds=prepared_at - started,
        frames_seconds=frames_at - prepared_at,
        finish_seconds=time.perf_counter() - frames_at,
    )
    report = build_report(
        config=config,
        info=setup.source.info,
        faults=setup.source.faults,
        prepared=setup.prepared,
        selection=setup.selection,
        engine=setup.engine,
        num_requests=loop.num_requests,
        max_in_flight=loop.max_in_flight,
        cores=setup.cores,
        encoder_settings=encoder.settings,
        stats=stats,
        notes=notes,
        phases=phases,
        judgement=_judged(config, setup, jsonl, truth),
        annotated=annotated,
    )
    write_report(report, scratch, loop.snapshots.pictures)
    for name in _OUTPUT_NAMES:
        if (scratch / name).exists():
            (scratch / name).replace(config.output_dir / name)
        else:
            (config.output_dir / name).unlink(missing_ok=True)  # The truth of another run.
    return report


def _write_truth(lines: TextIO, frame_rate: Fraction, index: int, truth: Truth) -> None:
    lines.write(json.dumps(truth_record(index, float(index / frame_rate), truth)) + "\n")


def _judged(config: ProcessConfig, setup: _Setup, found: Path, truth: Path) -> Judgement | None:
    """None where the truth is not known, or the model knows other things."""
    if config.scene is None or setup.prepared.layout.class_names != CLASS_NAMES:
        return None
    return judge(found, truth, setup.class_ids)


def select_class_ids(detect: DetectOptions, layout: HeadLayout) -> frozenset[int] | None:
    """The numbers of the classes to keep. Raises UsageError for one the model does not know."""
    if detect.classes is None:
        return None
    numbers = {name: number for number, name in enumerate(layout.class_names)}
    wanted = set()
    for entry in detect.classes:
        if entry in numbers:
            wanted.add(numbers[entry])
        elif entry.isdecimal() and int(entry) < layout.num_classes:
            wanted.add(int(entry))
        else:
            raise UsageError(
                f"class {entry!r} is unknown; this model has: {', '.join(layout.class_names)}"
            )
    return frozenset(wanted)


def _open_source(config: ProcessConfig, num_threads: int, on_truth: OnTruth | None) -> FrameSource:
    if isinstance(config.source, SyntheticOptions):
        return SyntheticSource(config.source, on_truth)
    return VideoReader(config.source, num_threads=num_threads)


def _quantized(
    config: ProcessConfig,
    prepared: PreparedModel,
    source: FrameSource,
    on_progress: ProgressCallback,
) -> PreparedModel:
    # Only here: a run in float need not load it.
    from pipeline.model.quantize import calibration_of_folder, calibration_of_source, quantize

    if config.calibration is not None:
        calibration = calibration_of_folder(config.calibration)
    else:
        calibration = calibration_of_source(config.source, source.info.size_wh)
    return quantize(prepared, config.imgsz, calibration, on_progress)


def _require_free_output(config: ProcessConfig) -> None:
    for name in reversed(_OUTPUT_NAMES):
        target = config.output_dir / name
        if isinstance(config.source, Path) and config.source.resolve() == target.resolve():
            raise UsageError(
                f"{config.source} is both the input and the output: choose another folder"
            )
        if target.exists() and not config.overwrite:
            raise InputError(f"{target} exists already: --overwrite replaces it")
        if target.is_dir():
            raise InputError(f"{target} is a folder: it cannot be replaced")


def _notes_on_length(info: VideoInfo, num_frames: int) -> list[str]:
    """What a clip that was cut off claims to hold beyond what could be read."""
    if info.num_frames_header and info.num_frames_header > num_frames:
        return [f"the clip claims {info.num_frames_header} frames, {num_frames} could be read"]
    return []


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
