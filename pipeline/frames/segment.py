"""One segment of a clip, taken through all steps: a video track, its detections, and a manifest."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TextIO

from pipeline.core.config import LimitOptions, ProcessConfig
from pipeline.core.errors import InputError
from pipeline.core.library_threads import one_library_thread
from pipeline.core.position import Position, Step
from pipeline.core.text import counted
from pipeline.frames.adaptive import Adaptive, frames_in_half
from pipeline.frames.annotated_file import (
    FrameEncoder,
    NoEncoder,
    open_encoder,
    undrawn,
    verify_annotated,
)
from pipeline.frames.cpu_account import CpuAccount, workers
from pipeline.frames.detect import ModelDetections
from pipeline.frames.frame_boxes import DetectSettings
from pipeline.frames.loop import Results, run_frames
from pipeline.frames.sampling import EveryNth, Sampler
from pipeline.frames.scaled import annotator
from pipeline.frames.snapshots import snapshots_of
from pipeline.frames.stats import RunStats
from pipeline.frames.task import Manifest, RunSettings, SegmentTask
from pipeline.inference.engine import Engine
from pipeline.media.frame import Frame, FrameSource, Segment, SourceFaults, VideoInfo
from pipeline.model.compiled import infers
from pipeline.model.prepare import PreparedModel
from pipeline.synthetic.scene import Truth
from pipeline.synthetic.source import SyntheticSource
from pipeline.synthetic.truth import truth_record


@dataclass(frozen=True, slots=True)
class OpenClip:
    """An open clip: its frames and the model for them."""

    source: FrameSource
    prepared: PreparedModel


@one_library_thread()
def process_segment(
    clip: OpenClip,
    engine: Engine,
    task: SegmentTask,
    position: Position,
    on_frame: Callable[[], object],
    end_turn: Callable[[], object] | None = None,
) -> Manifest:
    """Take a segment's frames through all steps into files that were read back and are right.

    position: set to where the work is. on_frame: called once per finished frame. end_turn: called
    when the last frame of the clip was decoded, so that those of another one can follow; None if
    there are no others in this process. Raises PipelineError.
    """
    source, stats = clip.source, RunStats(position)
    frames = _frames(source, task, end_turn)  # To find their begin may count faults.
    faults_before = _faults_before(source, task.segment)
    encoder = _open_encoder(task, source.info)
    account = CpuAccount(alone=end_turn is None)
    with contextlib.ExitStack() as stack:
        stack.callback(encoder.abandon)
        stack.enter_context(position.failures_told())
        results = stack.enter_context(_open_results(clip, task, encoder))
        settings = detect_settings(task.settings, source.info)
        detections = stack.enter_context(
            ModelDetections(frames, task.first_index, engine, clip.prepared, settings, stats)
        )
        num_in_flight = stats.in_flight.limit or 0
        require_memory(source.info, num_in_flight, task.settings.config.limits)
        end_seconds = run_frames(detections, results, stats, task.first_index, on_frame)
        position.encoding.enter(Step.JOIN)
        account.record(
            stats,
            workers(source.worker_threads, encoder.worker_threads),
            stats.decoding_thread_cpu_ns / 1e9,
            infers,
            all_infer=engine.facts()["engine"] == "pytorch",
        )
        if stats.num_frames:
            encoder.close()
    verify_annotated(task, source.info, encoder, end_seconds, position)
    return Manifest(
        end_seconds=end_seconds,
        ended=task.num_frames is None or stats.num_frames < task.num_frames,
        faults=source.faults.since(faults_before),
        times=encoder.some_times(),
        pictures=results.snapshots.pictures(),
        stats=stats,
        engine=_engine_facts(engine),
    )


def _frames(
    source: FrameSource, task: SegmentTask, end_turn: Callable[[], object] | None
) -> Iterator[Frame]:
    """The frames of a segment; end_turn is called after the last one of the clip."""
    frames: Iterator[Frame] = itertools.islice(source.frames(task.segment), task.num_frames)
    if end_turn is not None and task.segment.end_pts is None:
        return _then(frames, end_turn)
    return frames


def _then(frames: Iterator[Frame], call: Callable[[], object]) -> Iterator[Frame]:
    yield from frames
    call()


def _faults_before(source: FrameSource, segment: Segment) -> SourceFaults:
    """The faults that belong to earlier segments.

    What was skipped before the very first frame belongs to the first one.
    """
    faults = SourceFaults()
    is_sliced = source.timeline is not None and source.timeline.stretch is not None
    if segment.start_pts is not None or is_sliced:
        faults.add(source.faults)
    return faults


def _engine_facts(engine: Engine) -> dict[str, Any]:
    shape = engine.input_shape
    return {**engine.facts(), "batch": shape[0], "input_shape": list(shape)}


@contextlib.contextmanager
def _open_results(clip: OpenClip, task: SegmentTask, encoder: FrameEncoder) -> Iterator[Results]:
    config, files, source = task.settings.config, task.files, clip.source
    if config.video and config.redact.covered is not None:
        raise RuntimeError("what is covered is known only after a pass that draws nothing")
    class_names = clip.prepared.head.class_names
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(files.detections.open("w", encoding="utf-8"))
        weak_lines = None
        if config.keeps_weak:
            weak_lines = stack.enter_context(files.weak.open("w", encoding="utf-8"))
        if config.scene:
            assert isinstance(source, SyntheticSource)
            truth = stack.enter_context(files.truth.open("w", encoding="utf-8"))
            source.on_truth = functools.partial(_write_truth, truth, config.scene.frame_rate)
            stack.callback(setattr, source, "on_truth", None)  # The file is closed then.
        yield Results(
            render=annotator(source.info, config, class_names) if config.video else undrawn,
            encoder=encoder,
            snapshots=snapshots_of(task, source.info, class_names),
            lines=lines,
            class_names=class_names,
            says_interpolated=config.infers_some,
            weak_lines=weak_lines,
        )


def sampler_of(config: ProcessConfig, info: VideoInfo) -> Sampler:
    """What decides which frames of a clip are inferred."""
    if not config.adaptive:
        return EveryNth(config.every)
    most_frames = frames_in_half(config.limits.max_memory_mb, info.frame_bytes)
    return Adaptive(most_frames, config.detect.least_confidence)


def detect_settings(settings: RunSettings, info: VideoInfo) -> DetectSettings:
    config = settings.config
    return DetectSettings(
        options=config.detect,
        windows=config.windows(info.size_wh),
        class_ids=settings.class_ids,
        sampler=sampler_of(config, info),
        reuse_duplicates=config.reuse_duplicates,
        stall_seconds=config.stall_seconds,
        region=config.detect.region(info.size_wh),
        crop=config.detect.window(info.size_wh),
        keeps_weak=config.keeps_weak,
    )


def _open_encoder(task: SegmentTask, info: VideoInfo) -> FrameEncoder:
    config, num_threads = task.settings.config, task.settings.encoder_threads
    if not config.video:
        return NoEncoder()
    return open_encoder(task.files.annotated, info, config.encode, num_threads)


def require_memory(info: VideoInfo, num_frames: int, limits: LimitOptions) -> None:
    """Refuse a clip of which so many frames at a time take too much memory. Raises InputError."""
    needed_mb = -(-info.frame_bytes * num_frames // 1_000_000)
    if needed_mb > limits.max_memory_mb:
        raise InputError(
            f"{info.name}: {counted(num_frames, 'frame')} of {info.size_wh[0]}x{info.size_wh[1]} "
            f"({info.pix_fmt}) may be in flight, which needs {needed_mb} MB, more than "
            f"--max-memory {limits.max_memory_mb}; a smaller --batch or --requests needs less"
        )


def _write_truth(lines: TextIO, frame_rate: Fraction, index: int, pts: int, truth: Truth) -> None:
    lines.write(json.dumps(truth_record(index, float(pts / frame_rate), truth)) + "\n")
