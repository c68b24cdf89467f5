"""The way of the frames: two threads, and a pool of requests between them.

    decoding thread:     decode -> preprocess -> submit
    OpenVINO's threads:                          infer -> pick candidates
    the caller's thread:                                  reorder -> postprocess
                                                          -> annotate -> encode

The frames between the two ends are bounded, so memory does not depend on the clip's length.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions
from pipeline.core.errors import InferenceError, PipelineError, located
from pipeline.core.position import Place, Step
from pipeline.frames.annotate import Annotator
from pipeline.frames.encode import VideoEncoder
from pipeline.frames.interpolate import fill_in
from pipeline.frames.reorder import ReorderBuffer
from pipeline.frames.snapshots import Snapshots
from pipeline.frames.stats import RunStats
from pipeline.inference.engine import Engine, Heads, Pool
from pipeline.media.frame import Frame, VideoInfo
from pipeline.media.still import PictureEncoder
from pipeline.model.letterbox import Letterbox
from pipeline.model.postprocess import Candidates, detections_from
from pipeline.model.prepare import PreparedModel
from pipeline.model.preprocess import Preprocessor

_LEAST_CPU_SECONDS = 0.001
"""Of CPU time between two looks: what uses less is blocked. The share of a process that many others
leave little of the machine to is larger, also where its threads have a niceness."""

_EXTRA_IN_FLIGHT = 4
_SAMPLED_ROWS = 16
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
class _NotInferred:
    """A frame that repeats the last inferred one, or one whose turn to be inferred it is not."""

    frame: Frame
    repeats: bool


@dataclass(frozen=True, slots=True)
class _End:
    num_frames: int


@dataclass(frozen=True, slots=True)
class _Failure:
    error: BaseException


class FrameLoop:
    """The frames of a clip, or of a segment of it, on their way.

    frames count from 0; first_index is the place of the first one in the clip, by which frames
    are named to others. on_frame: is told of every frame that is done.

    Whatever fails, on any thread, comes through the same queue as the results; `run` then stops
    the producer, waits for the requests under way, and raises the first error, a PipelineError
    that names the step and the frame. A context manager, which ends what runs.
    """

    def __init__(
        self,
        *,
        frames: Iterator[Frame],
        first_index: int,
        info: VideoInfo,
        engine: Engine,
        prepared: PreparedModel,
        box: Letterbox,
        detect: DetectOptions,
        class_ids: frozenset[int] | None,
        every: int,
        reuse_duplicates: bool,
        encoder: VideoEncoder | PictureEncoder,
        results: TextIO,
        stats: RunStats,
        snapshots: Snapshots,
        on_frame: Callable[[], object],
        stall_seconds: float,
    ) -> None:
        self._frames = frames
        self._first_index = first_index
        self._prepared = prepared
        self._box = box
        self._detect = detect
        self._class_ids = class_ids
        self._every = every
        self._reuse_duplicates = reuse_duplicates
        self._annotator = Annotator(info, prepared.layout.class_names)
        self._encoder = encoder
        self._results = results
        self._stats = stats
        self._snapshots = snapshots
        self._on_frame = on_frame
        self._stall_seconds = stall_seconds
        self._arrived: SimpleQueue[_Inferred | _NotInferred | _End | _Failure] = SimpleQueue()
        self._stop = threading.Event()
        self._pool: Pool[Frame] = engine.open_pool(self._inferred, self._failed)
        # More than there are requests: a failed request is found when its turn comes again.
        max_in_flight = (
            self._pool.num_requests * self._pool.batch + _EXTRA_IN_FLIGHT + 2 * (every - 1)
        )
        self._in_flight = threading.Semaphore(max_in_flight)
        self._producer = threading.Thread(target=self._produce, name="decode", daemon=True)
        self.end_seconds = 0.0
        stats.requests_running.limit = self._pool.num_requests
        stats.in_flight.limit = max_in_flight

    def __enter__(self) -> FrameLoop:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop the producer and close the pool; a step or a model that hangs is left behind."""
        self._stop.set()
        self._in_flight.release()
        self._pool.close()
        # While a request hangs, so does the producer that waits for it.
        if self._producer.ident is not None and not self._pool.num_running:
            self._producer.join(_JOIN_SECONDS)

    def run(self) -> None:
        """Take every frame through all steps; returns when the encoder has taken the last."""
        self._producer.start()
        try:
            self._consume()
        except Exception as error:
            placed = _placed(error, self._stats.position.encoding)
            if placed is error:
                raise
            raise placed from error

    def _produce(self) -> None:
        clocks, place, num_frames = self._stats.producer, self._stats.position.decoding, 0
        try:
            preprocess = Preprocessor(self._box)
            last_input: NDArray[np.uint8] | None = None
            frames = _with_turns(self._frames, self._every)
            num_ahead = int(self._every > 1)
            while not self._stop.is_set():
                place.frame_index = self._first_index + num_frames + num_ahead
                with clocks.decode:
                    frame, is_its_turn = next(frames, (None, False))
                with clocks.wait_in_flight:
                    self._wait_for_room()
                if frame is None or self._stop.is_set():
                    break
                place.frame_index = self._first_index + num_frames
                num_frames += 1
                if not is_its_turn:
                    self._arrived.put(_NotInferred(frame, repeats=False))
                    continue
                with clocks.wait_request:
                    model_input = self._pool.next_input()
                with clocks.preprocess:
                    preprocess(frame, model_input)
                    repeats = last_input is not None and _equal(model_input, last_input)
                if repeats:
                    self._arrived.put(_NotInferred(frame, repeats=True))
                    continue
                with clocks.submit:
                    self._pool.submit(frame)
                if self._reuse_duplicates:
                    last_input = model_input
            with clocks.wait_request:
                self._pool.drain()
        except BaseException as error:
            self._failed(_placed(error, place) if isinstance(error, Exception) else error)
        finally:
            self._stats.decoding_thread_cpu_ns += time.thread_time_ns()
            place.enter(Step.DONE)
            self._arrived.put(_End(num_frames))

    def _wait_for_room(self) -> None:
        """Wait until fewer frames than the bound are between the two ends."""
        if self._in_flight.acquire(blocking=False):
            return
        while True:
            if not self._pool.num_running:
                # Those that wait for their batch to fill would wait for ever.
                self._pool.flush()
            # Looks again: a request counts as running until its results have long been taken.
            if self._in_flight.acquire(timeout=_POLL_SECONDS):
                return

    def _inferred(self, frame: Frame, heads: Heads, latency_seconds: float) -> None:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        try:
            candidates = self._prepared.select_candidates(heads, self._detect.confidence_threshold)
        except Exception as error:
            self._failed(located(error, Step.CALLBACK.label, self._first_index + frame.index))
            return
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
        clocks, place = self._stats.consumer, self._stats.position.encoding
        started = time.perf_counter()
        for detected in fill_in(self._detected()):
            frame, detections = detected.frame, detected.detections
            self.end_seconds = float((frame.pts + frame.duration) * frame.time_base)
            # With frames in between that are not inferred, not the one that arrived last.
            place.frame_index = self._first_index + frame.index
            with clocks.annotate:
                image = self._annotator(frame.image, detections)
                self._snapshots.look(self.end_seconds, image)
            with clocks.encode:
                self._encoder.encode(image, frame.pts, frame.duration, frame.time_base)
            with clocks.write:
                record: dict[str, object] = {
                    "frame_index": frame.index,
                    "pts": frame.source_pts,
                    "pts_seconds": round(frame.pts_seconds, 6),
                }
                if self._every > 1:
                    record["interpolated"] = not detected.inferred
                record["detections"] = detections.as_records(self._prepared.layout.class_names)
                self._results.write(json.dumps(record) + "\n")
                self._stats.note_frame(detections.class_id, time.perf_counter() - started)
                self._on_frame()
            self._in_flight.release()
        with clocks.encode:
            self._encoder.flush()

    def _detected(self) -> Iterator[tuple[Frame, Detections | None]]:
        """Every frame in order, with its detections if it was inferred or repeats such a one."""
        stats, detect, last = self._stats, self._detect, Detections.empty()
        for item in self._in_order():
            stats.position.encoding.frame_index = self._first_index + item.frame.index
            if isinstance(item, _Inferred):
                stats.inferred_frames += 1
                with stats.consumer.postprocess:
                    last = detections_from(
                        item.candidates,
                        self._box,
                        confidence_threshold=detect.confidence_threshold,
                        iou_threshold=detect.iou_threshold,
                        max_detections=detect.max_detections,
                        class_ids=self._class_ids,
                    )
                yield item.frame, last
            elif item.repeats:
                stats.reused_frames += 1
                yield item.frame, last
            else:
                yield item.frame, None

    def _in_order(self) -> Iterator[_Inferred | _NotInferred]:
        """What arrives, in the order of the frames, until all of them have come."""
        stats, waiting = self._stats, self._stats.consumer.wait_inference
        reorder: ReorderBuffer[_Inferred | _NotInferred] = ReorderBuffer()
        num_frames: int | None = None
        while num_frames is None or reorder.next_index < num_frames:
            stats.position.encoding.frame_index = self._first_index + reorder.next_index
            with waiting:
                arrived = self._next_arrival()
            if isinstance(arrived, _Failure):
                raise arrived.error
            if isinstance(arrived, _End):
                num_frames = arrived.num_frames
                continue
            if isinstance(arrived, _Inferred):
                stats.callback_wall_ns += arrived.callback_wall_ns
                stats.callback_cpu_ns += arrived.callback_cpu_ns
                stats.latency_seconds_sum += arrived.latency_seconds
            for item in reorder.push(arrived.frame.index, arrived):
                stats.requests_running.sample(self._pool.num_running)
                stats.completed.sample(self._arrived.qsize())
                stats.reorder.sample(len(reorder))
                yield item

    def _next_arrival(self) -> _Inferred | _NotInferred | _End | _Failure:
        """Wait for what comes next. Raises InferenceError if the model has hung.

        Measured in progress of the threads, because a busy machine or a large input takes its time:
        requests have hung if none finishes while these use no CPU time for the limit, or
        as much of it as all of them may take together.
        """
        limit_seconds, pool = self._stall_seconds, self._pool
        most_cpu_seconds = limit_seconds * pool.num_requests * pool.batch
        blocked_seconds = spent_seconds = 0.0
        before = pool.cpu_seconds()
        while True:
            try:
                return self._arrived.get(timeout=_POLL_SECONDS)
            except Empty:
                now = pool.cpu_seconds()
                used, before = now - before, now
                spent_seconds += used
                # Looks are counted: for a process that was stopped (Ctrl-Z), only time passes.
                blocked_seconds = (
                    0.0 if used > _LEAST_CPU_SECONDS else blocked_seconds + _POLL_SECONDS
                )
                if not pool.num_running:
                    blocked_seconds = spent_seconds = 0.0
                if blocked_seconds >= limit_seconds or spent_seconds >= most_cpu_seconds:
                    raise InferenceError(
                        f"the model did not answer within {limit_seconds:g} s; --stall-seconds "
                        "allows more; or try --device CPU, or a smaller --batch and --requests"
                    ) from None


def _with_turns(frames: Iterator[Frame], every: int) -> Iterator[tuple[Frame, bool]]:
    """Each frame, with whether it is to be inferred: each Nth is, and the last."""
    if every == 1:
        yield from ((frame, True) for frame in frames)
        return
    frame = next(frames, None)
    while frame is not None:
        following = next(frames, None)
        yield frame, following is None or frame.index % every == 0
        frame = following


def _placed(error: Exception, place: Place) -> PipelineError:
    """The error with the place of the thread that it came up on; waits are for the model."""
    step = Step.INFER if place.step.waits else place.step
    return located(error, step.label, place.frame_index)


def _equal(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Whether two inputs are the same to the byte; told from a few rows for most that are not."""
    step = -(-len(a) // _SAMPLED_ROWS)
    return np.array_equal(a[::step], b[::step]) and np.array_equal(a, b)
