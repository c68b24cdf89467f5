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
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pipeline.core.boxes import Detections
from pipeline.core.closing import Closing
from pipeline.core.errors import located
from pipeline.core.position import Step
from pipeline.frames.arrivals import Arrivals, End, Failure, Inferred, NotInferred, Submitted
from pipeline.frames.frame_boxes import DetectSettings, FrameBoxes
from pipeline.frames.latest_detections import LatestDetections
from pipeline.frames.reorder import ReorderBuffer
from pipeline.frames.sampling import Choice, DetectedFrame, FoundFrame, Sampler
from pipeline.frames.stats import RunStats
from pipeline.frames.views import LatestParts, Part, View, views_of
from pipeline.inference.engine import Engine, Heads, Pool
from pipeline.media.crop import Cropper
from pipeline.media.frame import Frame
from pipeline.model.prepare import PreparedModel

_EXTRA_IN_FLIGHT = 4
_POLL_SECONDS = 0.5
_JOIN_SECONDS = 2.0


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
        self._views = views_of(settings.windows, prepared.input_wh)
        self._settings = settings
        self._stats = stats
        self._crop = None if settings.crop is None else Cropper(settings.crop)
        self._boxes = FrameBoxes(settings, prepared.head, self._views)
        self._incomplete: dict[int, Submitted] = {}
        self._arrived = Arrivals(settings.stall_seconds)
        self._audited: set[int] = set()
        self._stop = threading.Event()
        self._pool: Pool[Part] = engine.open_pool(self.on_inferred, self._failed)
        num_requests = -(-self._pool.num_requests * self._pool.batch // len(self._views))
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
        boxes = self._boxes.asked_for(found)
        if detected.audit is not None:
            least = self._settings.options.least_confidence
            # At the threshold of a class, boxes come and go: those of the lowest one are compared.
            ours, theirs = found.above(least), self._in_region(detected.audit).above(least)
            self._stats.audit.compare(ours, theirs, least)
        weak = None if detected.weak is None else self._in_region(detected.weak)
        return replace(detected, detections=boxes, weak=weak)

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
        latest = LatestParts(len(self._views))
        choose = self._settings.sampler.choose
        for frame, choice in choose(self._decoded(), self._wait_for, self._window):
            place.frame_index = self._first_index + frame.index
            if choice is Choice.LEAVE:
                self._require_running()
                self._arrived.put(NotInferred(frame, None))
                yield frame
                continue
            if choice is Choice.AUDIT:
                self._audited.add(frame.index)
            parts = [self._part(i, view, frame, latest) for i, view in enumerate(self._views)]
            repeats = latest.repeated(frame.index, parts)
            if repeats is None:
                self._arrived.put(Submitted(frame, parts))
            else:
                self._found.repeat(frame.index, repeats)
                self._arrived.put(NotInferred(frame, repeats))
            yield frame

    def _part(self, number: int, view: View, frame: Frame, latest: LatestParts) -> Part:
        """What the model finds in a view of a frame, once it is done."""
        self._require_running()
        clocks = self._stats.producer
        with clocks.wait_request:
            model_input = self._pool.next_input()
        with clocks.preprocess:
            view.write(frame, model_input)
            part = latest.same(number, frame.index, model_input)
        if part is None:
            part = Part(frame.index)
            with clocks.submit:
                self._pool.submit(part)
                if self._settings.reuse_duplicates:
                    latest.keep(number, part, model_input)
        return part

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
        return self._boxes.sampled(found)

    def _flush_if_idle(self) -> None:
        # Those that wait for their batch to fill would wait for ever. Callers look again: a
        # request counts as running until its results have long been taken.
        if not self._pool.num_running:
            self._pool.flush()

    def _require_running(self) -> None:
        if self._stop.is_set():
            raise _Stopped

    # The threads that infer

    def on_inferred(self, part: Part, heads: Heads, latency_seconds: float) -> None:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        threshold = self._boxes.least_confidence
        try:
            part.candidates = self._prepared.head.select(heads, threshold)
        except Exception as error:
            self._failed(located(error, Step.CALLBACK.label, self._first_index + part.index))
            return
        self._arrived.put(
            Inferred(
                part,
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
            for complete in self._taken(arrived):
                for frame, source in reorder.push(complete[0].index, complete):
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
                    sampled, weak = self._boxes.sampled(boxes), self._boxes.weak(boxes)
                    yield FoundFrame(frame, sampled, is_audit, weak)

    def _taken(
        self, arrived: Inferred | Submitted | NotInferred
    ) -> Iterator[tuple[Frame, int | None]]:
        """The frames that are complete now, each with the index of the one whose boxes it has.

        That is None for a frame that is not inferred.
        """
        stats = self._stats
        if isinstance(arrived, NotInferred):
            if arrived.repeats is not None and arrived.frame.index not in self._audited:
                stats.reused_frames += 1
            yield arrived.frame, arrived.repeats
            return
        if isinstance(arrived, Submitted):
            self._incomplete[arrived.frame.index] = arrived
        else:
            stats.callback_wall_ns += arrived.callback_wall_ns
            stats.callback_cpu_ns += arrived.callback_cpu_ns
            stats.latency_seconds_sum += arrived.latency_seconds
            stats.inferred_parts += 1
            arrived.part.is_done = True
        for done in [frame for frame in self._incomplete.values() if frame.is_done]:
            index = done.frame.index
            del self._incomplete[index]
            stats.inferred_frames += index not in self._audited
            stats.consumer.place.frame_index = self._first_index + index
            with stats.consumer.postprocess:
                self._found.put(index, self.detections_of(done.frame, done.parts))
            yield done.frame, index

    def detections_of(self, frame: Frame, parts: Sequence[Part]) -> Detections:
        """The boxes of a frame of what was found in its views, in its pixels."""
        return self._boxes.of(parts)


class _Stopped(Exception):
    """The frames are not wanted any more."""
