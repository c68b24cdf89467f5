"""The way of the frames: two threads, and a pool of requests between them.

    decoding thread:     decode -> preprocess -> submit
    OpenVINO's threads:                          infer -> pick candidates
    the caller's thread:                                  reorder -> postprocess
                                                          -> annotate -> encode

The frames between the two ends are bounded, so memory does not depend on the clip's length.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TextIO

import openvino as ov

from pipeline.annotate import Annotator
from pipeline.config import DetectOptions
from pipeline.encode import VideoEncoder
from pipeline.errors import InferenceError
from pipeline.frames import Frame, FrameSource
from pipeline.heads import HeadLayout
from pipeline.infer import Heads, InferPool
from pipeline.letterbox import Letterbox
from pipeline.postprocess import Candidates, detections_from, select_candidates
from pipeline.preprocess import Preprocessor
from pipeline.progress import Progress, ProgressCallback
from pipeline.reorder import ReorderBuffer
from pipeline.stats import RunStats

STALL_SECONDS = 6.0
"""When no running request has finished for this long, they have hung; the run then ends."""

_EXTRA_IN_FLIGHT = 4
_POLL_SECONDS = 0.5
_JOIN_SECONDS = 2.0


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


class FrameLoop:
    """The way of the frames: two threads and a pool of requests between them.

    Whatever fails, on any thread, comes through the same queue as the results; `run` then stops
    the producer, waits for the requests under way, and raises the first error.
    """

    def __init__(
        self,
        *,
        source: FrameSource,
        compiled: ov.CompiledModel,
        num_requests: int | None,
        layout: HeadLayout,
        box: Letterbox,
        detect: DetectOptions,
        class_ids: frozenset[int] | None,
        encoder: VideoEncoder,
        results: TextIO,
        stats: RunStats,
        on_progress: ProgressCallback,
    ) -> None:
        self._source = source
        self._layout = layout
        self._box = box
        self._detect = detect
        self._class_ids = class_ids
        self._annotator = Annotator(source.info, layout.class_names)
        self._encoder = encoder
        self._results = results
        self._stats = stats
        self._on_progress = on_progress
        self._arrived: SimpleQueue[_Inferred | _End | _Failure] = SimpleQueue()
        self._stop = threading.Event()
        self._pool: InferPool[Frame] = InferPool(
            compiled, num_requests, self._inferred, self._failed
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
