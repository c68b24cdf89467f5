"""Wires the steps together; owns every queue, thread and shutdown.

    this thread's helper:  decode -> preprocess -> submit
    OpenVINO's threads:                            infer -> pick candidates
    this thread:                                            reorder -> postprocess
                                                            -> annotate -> encode

The frames between the two ends are bounded, so memory does not depend on the clip's length.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TextIO

import openvino as ov

from pipeline.annotate import Annotator
from pipeline.config import DetectOptions, ProcessConfig, SyntheticOptions
from pipeline.decode import VideoReader
from pipeline.encode import VideoEncoder
from pipeline.errors import InferenceError, InputError, Interrupted, UsageError
from pipeline.frames import Frame, FrameSource
from pipeline.heads import HeadLayout
from pipeline.infer import Heads, InferPool, compile_model
from pipeline.letterbox import letterbox
from pipeline.machine import available_cores, process_cpu_seconds
from pipeline.model.prepare import PreparedModel, prepare_model
from pipeline.model.weights import find_weights
from pipeline.mux import mux, verify
from pipeline.postprocess import Candidates, detections_from, select_candidates
from pipeline.preprocess import Preprocessor
from pipeline.progress import Progress, ProgressCallback, no_progress
from pipeline.reorder import ReorderBuffer
from pipeline.report import Phases, Report, build_report, write_report
from pipeline.stats import RunStats, thread_ids, threads_cpu_seconds
from pipeline.synthetic import SyntheticSource

ANNOTATED_NAME = "annotated.mp4"
DETECTIONS_NAME = "detections.jsonl"
STALL_SECONDS = 6.0
"""When no running request has finished for this long, they have hung; the run then ends."""

_EXTRA_IN_FLIGHT = 4
_POLL_SECONDS = 0.5
_JOIN_SECONDS = 2.0


def process_video(config: ProcessConfig, on_progress: ProgressCallback = no_progress) -> Report:
    """Annotate a clip: writes annotated.mp4, detections.jsonl, report.json and report.html.

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
        return _process(config, Path(scratch_name), started, on_progress)
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
    compiled: ov.CompiledModel
    class_ids: frozenset[int] | None
    encoder: VideoEncoder
    cores: int
    codec_threads: int
    decode_workers: frozenset[int]
    encode_workers: frozenset[int]


def _set_up(config: ProcessConfig, video: Path, on_progress: ProgressCallback) -> _Setup:
    cores = available_cores()
    codec_threads = _codec_threads(cores)
    threads_before = thread_ids()
    source = _open_source(config, codec_threads)
    decode_workers = thread_ids() - threads_before
    try:
        weights = find_weights(config.weights, on_progress)
        prepared = prepare_model(weights, source.info.size_wh, config.imgsz, on_progress)
        class_ids = select_class_ids(config.detect, prepared.layout)
        compiled = compile_model(prepared.model, config.infer, prepared.compiled_cache_dir)
        threads_before = thread_ids()
        encoder = VideoEncoder(video, source.info, config.encode, num_threads=codec_threads)
        encode_workers = thread_ids() - threads_before
    except BaseException:
        source.close()
        raise
    return _Setup(
        source=source,
        prepared=prepared,
        compiled=compiled,
        class_ids=class_ids,
        encoder=encoder,
        cores=cores,
        codec_threads=codec_threads,
        decode_workers=decode_workers,
        encode_workers=encode_workers,
    )


def _process(
    config: ProcessConfig, scratch: Path, started: float, on_progress: ProgressCallback
) -> Report:
    video, jsonl, annotated = (
        scratch / name for name in ("video.mp4", DETECTIONS_NAME, ANNOTATED_NAME)
    )
    setup = _set_up(config, video, on_progress)
    stats, encoder = RunStats(), setup.encoder
    prepared_at, cpu_before = time.perf_counter(), process_cpu_seconds()
    with jsonl.open("w", encoding="utf-8") as results:
        loop = _FrameLoop(setup, config, results, stats, on_progress)
        try:
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
    notes = mux(video, source_path, annotated)
    verify(annotated, stats.num_frames, loop.end_seconds)
    for finished in (annotated, jsonl):
        _flush_to_disk(finished)
        finished.replace(config.output_dir / finished.name)
    report = build_report(
        config=config,
        info=setup.source.info,
        faults=setup.source.faults,
        prepared=setup.prepared,
        compiled=setup.compiled,
        num_requests=loop.num_requests,
        max_in_flight=loop.max_in_flight,
        cores=setup.cores,
        codec_threads=setup.codec_threads,
        encoder_settings=encoder.settings,
        stats=stats,
        notes=notes,
        phases=Phases(
            prepare_seconds=prepared_at - started,
            frames_seconds=frames_at - prepared_at,
            finish_seconds=time.perf_counter() - frames_at,
        ),
        annotated=config.output_dir / ANNOTATED_NAME,
    )
    write_report(report, config.output_dir)
    return report


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


@dataclass(frozen=True, slots=True)
class _Inferred:
    frame: Frame
    candidates: Candidates | None
    latency_seconds: float
    callback_wall_ns: int
    callback_cpu_ns: int


@dataclass(frozen=True, slots=True)
class _End:
    num_frames: int


@dataclass(frozen=True, slots=True)
class _Failure:
    error: BaseException


class _FrameLoop:
    """The way of the frames: two threads and a pool of requests between them.

    Whatever fails, on any thread, comes through the same queue as the results; `run` then stops
    the producer, waits for the requests under way, and raises the first error.
    """

    def __init__(
        self,
        setup: _Setup,
        config: ProcessConfig,
        results: TextIO,
        stats: RunStats,
        on_progress: ProgressCallback,
    ) -> None:
        self._source = setup.source
        self._encoder = setup.encoder
        self._layout = setup.prepared.layout
        self._class_ids = setup.class_ids
        self._box = letterbox(setup.source.info.size_wh, setup.prepared.input_wh)
        self._annotator = Annotator(setup.source.info, setup.prepared.layout.class_names)
        self._detect = config.detect
        self._results = results
        self._stats = stats
        self._on_progress = on_progress
        self._arrived: SimpleQueue[_Inferred | _End | _Failure] = SimpleQueue()
        self._stop = threading.Event()
        self._pool: InferPool[Frame] = InferPool(
            setup.compiled, config.infer.num_requests, self._inferred, self._failed
        )
        self.num_requests = len(self._pool)
        # More than there are requests: a failed request is found when its turn comes again.
        self.max_in_flight = self.num_requests + _EXTRA_IN_FLIGHT
        self._in_flight = threading.Semaphore(self.max_in_flight)
        self.end_seconds = 0.0
        stats.requests_running.limit = self.num_requests

    def run(self) -> None:
        """Take every frame through all steps; returns when the encoder has taken the last."""
        producer = threading.Thread(target=self._produce, name="decode", daemon=True)
        producer.start()
        try:
            self._consume()
        finally:
            self._stop.set()
            self._in_flight.release()
            producer.join(_JOIN_SECONDS)

    def _produce(self) -> None:
        clocks, num_frames = self._stats.producer, 0
        try:
            preprocess = Preprocessor(self._box)
            frames = iter(self._source)
            while not self._stop.is_set():
                with clocks.decode:
                    frame = next(frames, None)
                with clocks.wait_in_flight:
                    self._in_flight.acquire()
                if frame is None or self._stop.is_set():
                    break
                with clocks.wait_request:
                    request = self._pool.wait_for_request()
                with clocks.preprocess:
                    preprocess(frame, self._pool.input_of(request))
                with clocks.submit:
                    self._pool.submit(request, frame)
                num_frames += 1
            with clocks.wait_request:
                self._pool.drain()
        except BaseException as error:
            self._failed(error)
            # OpenVINO aborts the process if requests are let go while they run.
            with contextlib.suppress(InferenceError):
                self._pool.drain()
        finally:
            # Closed here: only this thread knows when it no longer reads.
            self._source.close()
            self._arrived.put(_End(num_frames))

    def _inferred(self, frame: Frame, heads: Heads, latency_seconds: float) -> None:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        candidates = select_candidates(heads, self._layout, self._detect.confidence_threshold)
        self._arrived.put(
            _Inferred(
                frame,
                candidates,
                latency_seconds,
                time.perf_counter_ns() - wall,
                time.thread_time_ns() - cpu,
            )
        )

    def _failed(self, error: BaseException) -> None:
        self._arrived.put(_Failure(error))

    def _consume(self) -> None:
        clocks, detect, started = self._stats.consumer, self._detect, time.perf_counter()
        total = self._source.info.num_frames_header
        for frame, candidates in self._in_order():
            with clocks.postprocess:
                detections = detections_from(
                    candidates,
                    self._box,
                    confidence_threshold=detect.confidence_threshold,
                    iou_threshold=detect.iou_threshold,
                    max_detections=detect.max_detections,
                    class_ids=self._class_ids,
                )
            with clocks.annotate:
                image = self._annotator(frame.image, detections)
            with clocks.encode:
                self._encoder.encode(image, frame.pts, frame.duration, frame.time_base)
            with clocks.write:
                record = {
                    "frame_index": frame.index,
                    "pts_seconds": round(frame.pts_seconds, 6),
                    "detections": detections.as_records(self._layout.class_names),
                }
                self._results.write(json.dumps(record, ensure_ascii=False) + "\n")
                self.end_seconds = float((frame.pts + frame.duration) * frame.time_base)
                self._stats.note_frame(detections.class_id, time.perf_counter() - started)
                self._on_progress(Progress("frames", frame.index + 1, total))
            self._in_flight.release()
        with clocks.encode:
            self._encoder.flush()

    def _in_order(self) -> Iterator[tuple[Frame, Candidates | None]]:
        """What was inferred, in the order of the frames, until all of them have come."""
        stats, waiting = self._stats, self._stats.consumer.wait_inference
        reorder: ReorderBuffer[_Inferred] = ReorderBuffer()
        num_frames: int | None = None
        while num_frames is None or reorder.next_index < num_frames:
            with waiting:
                arrived = self._next_arrival()
            if isinstance(arrived, _Failure):
                raise arrived.error
            if isinstance(arrived, _End):
                num_frames = arrived.num_frames
                continue
            stats.callback_wall_ns += arrived.callback_wall_ns
            stats.callback_cpu_ns += arrived.callback_cpu_ns
            stats.latency_seconds_sum += arrived.latency_seconds
            for item in reorder.push(arrived.frame.index, arrived):
                stats.requests_running.sample(self._pool.num_running)
                stats.completed.sample(self._arrived.qsize())
                stats.reorder.sample(len(reorder))
                yield item.frame, item.candidates

    def _next_arrival(self) -> _Inferred | _End | _Failure:
        while True:
            try:
                return self._arrived.get(timeout=_POLL_SECONDS)
            except Empty:
                if self._pool.stalled_seconds() > STALL_SECONDS:
                    raise InferenceError(
                        f"the model did not answer within {STALL_SECONDS:.0f} s; "
                        "try --device CPU, or fewer --streams and --requests"
                    ) from None


def _open_source(config: ProcessConfig, num_threads: int) -> FrameSource:
    if isinstance(config.source, SyntheticOptions):
        return SyntheticSource(config.source)
    return VideoReader(config.source, num_threads=num_threads)


def _require_free_output(config: ProcessConfig) -> None:
    annotated = config.output_dir / ANNOTATED_NAME
    if isinstance(config.source, Path) and config.source.resolve() == annotated.resolve():
        raise UsageError(f"{config.source} is both the input and the output: choose another folder")
    if annotated.exists() and not config.overwrite:
        raise InputError(f"{annotated} exists already: --overwrite replaces it")


def _codec_threads(cores: int) -> int:
    """Threads for the decoder, and as many for the encoder.

    One each while the model needs most of the cores anyway: more would only get in its way.
    """
    return max(1, cores // 2)


def _flush_to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
