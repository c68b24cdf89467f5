"""Detections of every frame, found by the model.

    decoding thread:     decode -> preprocess -> submit
    OpenVINO's threads:                          infer -> select candidates
    the caller's thread:                                  postprocess -> reorder

The frames between the two ends are bounded, so memory does not depend on the clip's length.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.closing import Closing
from pipeline.core.config import DetectOptions
from pipeline.core.detect_options import WEAK_CONFIDENCE
from pipeline.core.errors import located
from pipeline.core.position import Step
from pipeline.core.region import Region, Window
from pipeline.frames.arrivals import Arrivals, End, Failure, Inferred, NotInferred
from pipeline.frames.latest_detections import LatestDetections
from pipeline.frames.reorder import ReorderBuffer
from pipeline.frames.sampling import Choice, DetectedFrame, FoundFrame, Sampler
from pipeline.frames.stats import RunStats
from pipeline.inference.engine import Engine, Heads, Pool
from pipeline.media.crop import Cropper
from pipeline.media.frame import Frame
from pipeline.model.heads import Candidates, thresholds_of
from pipeline.model.letterbox import letterbox
from pipeline.model.postprocess import detections_from
from pipeline.model.prepare import PreparedModel
from pipeline.model.preprocess import Preprocessor

_EXTRA_IN_FLIGHT = 4
_SAMPLED_ROWS = 16
_POLL_SECONDS = 0.5
_JOIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """How frames become detections.

    class_ids: the classes to keep; None keeps all.
    region: where boxes are kept; None for everywhere. window: what is inferred of each frame; None
        for all of it.
    reuse_duplicates: give a frame whose model input equals the one before, to the byte, the
        detections of that one.
    stall_seconds: see `ProcessConfig`.
    keeps_weak: also find the boxes that only a tracker needs; they change no others.
    """

    options: DetectOptions
    class_ids: frozenset[int] | None
    sampler: Sampler
    reuse_duplicates: bool
    stall_seconds: float
    region: Region | None = None
    window: Window | None = None
    keeps_weak: bool = False


def most_in_flight(sampler: Sampler, num_requests: int) -> int:
    """How many frames are between decoding and the end of the loop at the most.

    num_requests: frames that can be inferred at the same time. There are more frames than that: a
    failed request is found when its turn comes again.
    """
    return num_requests + _EXTRA_IN_FLIGHT + sampler.window(num_requests)


class ModelDetections(Closing):
    """The detections that a model finds in the frames of a clip, or of a segment of it.

    frames count from 0; first_index is the place of the first one in the clip, by which messages
    name frames.

    What fails on any thread comes through the same queue as the results; the iterator then raises
    the first error. A context manager, which ends what runs.
    """

    def __init__(
        self,
        frames: Iterator[Frame],
        first_index: int,
        engine: Engine,
        prepared: PreparedModel,
        settings: DetectSettings,
        stats: RunStats,
    ) -> None:
        self._frames = frames
        self._first_index = first_index
        self._prepared = prepared
        self._box = letterbox(prepared.source_wh, prepared.input_wh)
        self._settings = settings
        self._stats = stats
        self._crop = None if settings.window is None else Cropper(settings.window)
        self._sampled = settings.options.down_to(settings.sampler.weakest_confidence)
        least = WEAK_CONFIDENCE if settings.keeps_weak else 1.0
        self._options = self._sampled.down_to(least)
        self._arrived = Arrivals(settings.stall_seconds)
        self._audited: set[int] = set()
        self._stop = threading.Event()
        self._pool: Pool[Frame] = engine.open_pool(self._inferred, self._failed)
        num_requests = self._pool.num_requests * self._pool.batch
        self._window = settings.sampler.window(num_requests)
        max_in_flight = most_in_flight(settings.sampler, num_requests)
        self._in_flight = threading.Semaphore(max_in_flight)
        self._found = LatestDetections(2 * max_in_flight)
        self._decoding = threading.Thread(target=self._decode, name="decode", daemon=True)
        stats.requests_running.limit = self._pool.num_requests
        stats.in_flight.limit = max_in_flight

    def close(self) -> None:
        """Stop decoding and close the pool; a step or a model that hangs is left behind."""
        self._stop.set()
        self._in_flight.release()
        self._pool.close()
        # While a request hangs, so does the thread that waits for it.
        if self._decoding.ident is not None and not self._pool.num_running:
            self._decoding.join(_JOIN_SECONDS)

    def __iter__(self) -> Iterator[DetectedFrame]:
        self._decoding.start()
        for detected in self._settings.sampler.fill_in(self._in_order()):
            with self._stats.consumer.postprocess:
                asked_for = self._asked_for(detected)
            yield asked_for
            self._in_flight.release()

    def _asked_for(self, detected: DetectedFrame) -> DetectedFrame:
        """Without the boxes that only the sampler needed; those of an audit are compared."""
        found = self._in_region(detected.detections)
        boxes = self._above(found)
        if detected.audit is not None:
            least = self._settings.options.least_confidence
            # At the threshold of a class, boxes come and go: those of the lowest one are compared.
            ours, theirs = found.above(least), self._in_region(detected.audit).above(least)
            self._stats.audit.compare(ours, theirs, least)
        weak = None if detected.weak is None else self._in_region(detected.weak)
        return replace(detected, detections=boxes, weak=weak)

    def _above(self, boxes: Detections) -> Detections:
        return boxes.above(self._thresholds(self._settings.options, boxes))

    def _thresholds(self, options: DetectOptions, boxes: Detections) -> float | NDArray[np.float32]:
        return thresholds_of(options, self._prepared.head.class_names, boxes.class_id)

    def _sampled_of(self, boxes: Detections) -> Detections:
        """Without the boxes that only a tracker needs."""
        if not self._settings.keeps_weak:
            return boxes
        return boxes.above(self._thresholds(self._sampled, boxes))

    def _weak_of(self, boxes: Detections) -> Detections | None:
        """Those that are less confident than asked for; None if none are kept."""
        if not self._settings.keeps_weak:
            return None
        return boxes.where(boxes.confidence <= self._thresholds(self._settings.options, boxes))

    def _in_region(self, boxes: Detections) -> Detections:
        # Not before frames between are interpolated: a box may pass the region there only.
        region = self._settings.region
        return boxes if region is None else region.kept(boxes)

    # The decoding thread

    def _decode(self) -> None:
        place, num_frames = self._stats.producer.place, 0
        try:
            for _ in self._submitted():
                num_frames += 1
            with self._stats.producer.wait_request:
                self._pool.drain()
        except _Stopped:
            pass
        except Exception as error:
            step = Step.INFER if place.step.waits else place.step
            self._failed(located(error, step.label, place.frame_index))
        except BaseException as error:
            self._failed(error)
        finally:
            self._stats.decoding_thread_cpu_ns += time.thread_time_ns()
            place.enter(Step.DONE)
            self._arrived.put(End(num_frames))

    def _submitted(self) -> Iterator[Frame]:
        """Every frame, once it is on its way."""
        clocks = self._stats.producer
        place = clocks.place
        preprocess = Preprocessor(self._box)
        last: tuple[int, NDArray[np.uint8]] | None = None
        choose = self._settings.sampler.choose
        for frame, choice in choose(self._decoded(), self._wait_for, self._window):
            self._require_running()
            place.frame_index = self._first_index + frame.index
            if choice is Choice.LEAVE:
                self._arrived.put(NotInferred(frame, None))
                yield frame
                continue
            if choice is Choice.AUDIT:
                self._audited.add(frame.index)
            with clocks.wait_request:
                model_input = self._pool.next_input()
            with clocks.preprocess:
                preprocess(frame, model_input)
                # One that was inferred out of order is none that this one follows.
                repeats = last and last[0] < frame.index and _equal(model_input, last[1])
            if last and repeats:
                self._found.repeat(frame.index, last[0])
                self._arrived.put(NotInferred(frame, last[0]))
            else:
                with clocks.submit:
                    self._pool.submit(frame)
                if self._settings.reuse_duplicates:
                    last = (frame.index, model_input)
            yield frame

    def _decoded(self) -> Iterator[Frame]:
        """The frames, each as soon as there is room for it."""
        clocks = self._stats.producer
        place = clocks.place
        for index in itertools.count(self._first_index):
            with clocks.wait_in_flight:
                self._wait_for_room()
            place.frame_index = index
            with clocks.decode:
                frame = next(self._frames, None)
            if frame is None:
                return
            if self._crop is not None:
                with clocks.preprocess:
                    frame = replace(frame, window=self._crop(frame.image))
            yield frame

    def _wait_for_room(self) -> None:
        """Wait until fewer frames than the bound are between the two ends."""
        if not self._in_flight.acquire(blocking=False):
            self._flush_if_idle()
            while not self._in_flight.acquire(timeout=_POLL_SECONDS):
                self._flush_if_idle()
        self._require_running()

    def _wait_for(self, index: int) -> Detections:
        """The detections of an inferred frame, for the sampler."""
        with self._stats.producer.wait_request:
            while (found := self._found.get(index)) is None:
                self._flush_if_idle()
                self._found.wait(_POLL_SECONDS)
                self._require_running()
        return self._sampled_of(found)

    def _flush_if_idle(self) -> None:
        # Those that wait for their batch to fill would wait for ever. Callers look again: a
        # request counts as running until its results have long been taken.
        if not self._pool.num_running:
            self._pool.flush()

    def _require_running(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    # The threads that infer

    def _inferred(self, frame: Frame, heads: Heads, latency_seconds: float) -> None:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        threshold = self._options.least_confidence
        try:
            candidates = self._prepared.head.select(heads, threshold)
        except Exception as error:
            self._failed(located(error, Step.CALLBACK.label, self._first_index + frame.index))
            return
        self._arrived.put(
            Inferred(
                frame,
                candidates,
                latency_seconds,
                time.perf_counter_ns() - wall,
                time.thread_time_ns() - cpu,
            )
        )

    def _failed(self, error: BaseException) -> None:
        self._arrived.put(Failure(error))

    # The caller's thread

    def _in_order(self) -> Iterator[FoundFrame]:
        """Every frame in order, with its detections if it was inferred or repeats such a one."""
        stats, place = self._stats, self._stats.consumer.place
        reorder: ReorderBuffer[tuple[Frame, int | None]] = ReorderBuffer()
        num_frames: int | None = None
        while num_frames is None or reorder.next_index < num_frames:
            place.frame_index = self._first_index + reorder.next_index
            with stats.consumer.wait_inference:
                arrived = self._arrived.take(self._pool)
            if isinstance(arrived, Failure):
                raise arrived.error
            if isinstance(arrived, End):
                num_frames = arrived.num_frames
                continue
            item = (arrived.frame, self._taken(arrived))
            for frame, source in reorder.push(arrived.frame.index, item):
                stats.requests_running.sample(self._pool.num_running)
                stats.completed.sample(len(self._arrived))
                stats.reorder.sample(len(reorder))
                place.frame_index = self._first_index + frame.index
                is_audit = frame.index in self._audited
                self._audited.discard(frame.index)
                if source is None:
                    yield FoundFrame(frame, None, is_audit)
                    continue
                boxes = self._found[source]
                yield FoundFrame(frame, self._sampled_of(boxes), is_audit, self._weak_of(boxes))

    def _taken(self, arrived: Inferred | NotInferred) -> int | None:
        """The index of the frame whose detections are those of the one that arrived; else None."""
        stats, index = self._stats, arrived.frame.index
        if isinstance(arrived, NotInferred):
            if arrived.repeats is not None and index not in self._audited:
                stats.reused_frames += 1
            return arrived.repeats
        stats.callback_wall_ns += arrived.callback_wall_ns
        stats.callback_cpu_ns += arrived.callback_cpu_ns
        stats.latency_seconds_sum += arrived.latency_seconds
        stats.inferred_frames += index not in self._audited
        stats.consumer.place.frame_index = self._first_index + index
        with stats.consumer.postprocess:
            self._found.put(index, self.detections_of(arrived.frame, arrived.candidates))
        return index

    def _detections_by(self, options: DetectOptions, candidates: Candidates | None) -> Detections:
        head, class_ids = self._prepared.head, self._settings.class_ids
        return detections_from(head, candidates, self._box, options, class_ids)

    def detections_of(self, frame: Frame, candidates: Candidates | None) -> Detections:
        """The boxes of a frame of those candidates, in its pixels."""
        found = self._detections_by(self._options, candidates)
        if self._settings.keeps_weak and self._options.class_thresholds:
            # Boxes below the threshold of their class must not take the place of those above.
            weak = found.where(found.confidence <= self._thresholds(self._sampled, found))
            found = self._detections_by(self._sampled, candidates).followed_by(weak)
        window = self._settings.window
        return found if window is None else found.moved(window.left, window.top)


class _Stopped(Exception):
    """The frames are not wanted any more."""


def _equal(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Whether two inputs are the same to the byte; told from a few rows for most that are not."""
    step = -(-len(a) // _SAMPLED_ROWS)
    return np.array_equal(a[::step], b[::step]) and np.array_equal(a, b)
