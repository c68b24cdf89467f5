"""Measurements: the time of each step, and the length of the queues."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from dataclasses import InitVar, asdict, dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.position import Place, Position, Step
from pipeline.frames.audit import Audit


class StepClock:
    """Adds up the wall and CPU time that one thread spends in one step.

    Use as a context manager around every piece of the step's work; it also tells the thread's
    place.
    """

    __slots__ = ("_cpu_start", "_enter", "_step", "_wall_start", "cpu_ns", "wall_ns")

    def __init__(self, step: Step, place: Place) -> None:
        self.wall_ns = 0
        self.cpu_ns = 0
        self._step, self._enter = int(step), place.enter

    def __enter__(self) -> None:
        self._enter(self._step)
        # Wall time is measured outside of CPU time: the kernel may switch threads when the CPU
        # clock is read, and that wait must be included.
        self._wall_start = time.perf_counter_ns()
        self._cpu_start = time.thread_time_ns()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.cpu_ns += time.thread_time_ns() - self._cpu_start
        self.wall_ns += time.perf_counter_ns() - self._wall_start


ENCODING_THREAD = "main"


@dataclass(slots=True)
class Occupancy:
    """How full a queue was when it was looked at; limit is None for one without its own."""

    limit: int | None = None
    maximum: int = 0
    sum: int = 0
    count: int = 0

    def sample(self, length: int) -> None:
        self.maximum = max(self.maximum, length)
        self.sum += length
        self.count += 1

    @property
    def mean(self) -> float:
        return self.sum / self.count if self.count else 0.0


class _Clocks:
    """The steps and waits of one thread. place: where the thread is, for the watchdog."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def by_name(self) -> dict[str, StepClock]:
        return {name: clock for name, clock in vars(self).items() if name != "place"}


class ProducerClocks(_Clocks):
    """Those of the thread that decodes."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.decode = StepClock(Step.DECODE, place)
        self.preprocess = StepClock(Step.PREPROCESS, place)
        self.submit = StepClock(Step.INFER, place)
        self.wait_in_flight = StepClock(Step.WAIT_IN_FLIGHT, place)
        self.wait_request = StepClock(Step.WAIT_REQUEST, place)


class ConsumerClocks(_Clocks):
    """Those of the thread that encodes."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.wait_inference = StepClock(Step.WAIT_INFERENCE, place)
        self.postprocess = StepClock(Step.POSTPROCESS, place)
        self.track = StepClock(Step.TRACK, place)
        self.annotate = StepClock(Step.ANNOTATE, place)
        self.encode = StepClock(Step.ENCODE, place)
        self.write = StepClock(Step.WRITE, place)


@dataclass(slots=True)
class RunStats:
    """Everything measured while the frames went through; memory use grows 6 bytes a frame.

    position: where the two threads are, which their clocks set; None for what is only added up.
    inferred_parts: inputs of the model, which are several for a frame in tiles.
    reused_frames: how many repeat the frame that was inferred before them, to the byte.
    audit: interpolated boxes compared with inferred ones.
    callback_cpu_ns: spent on inference threads picking candidates out of the heads.
    thread_cpu_seconds: of every thread, by its name; see `cpu_account`.
    """

    position: InitVar[Position | None] = None
    producer: ProducerClocks = field(init=False)
    consumer: ConsumerClocks = field(init=False)
    inferred_frames: int = 0
    inferred_parts: int = 0
    reused_frames: int = 0
    callback_wall_ns: int = 0
    callback_cpu_ns: int = 0
    latency_seconds_sum: float = 0.0
    requests_running: Occupancy = field(default_factory=Occupancy)
    completed: Occupancy = field(default_factory=Occupancy)
    reorder: Occupancy = field(default_factory=Occupancy)
    in_flight: Occupancy = field(default_factory=Occupancy)
    frames_wall_seconds: float = 0.0
    frames_cpu_seconds: float = 0.0
    decoding_thread_cpu_ns: int = 0
    thread_cpu_seconds: dict[str, float] = field(default_factory=dict)
    detections_per_frame: array[int] = field(default_factory=lambda: array("H"))
    finished_seconds: array[float] = field(default_factory=lambda: array("f"))
    detections_per_class: Counter[int] = field(default_factory=Counter)
    audit: Audit = field(default_factory=Audit)

    def __post_init__(self, position: Position | None) -> None:
        position = position or Position()
        self.producer = ProducerClocks(position.decoding)
        self.consumer = ConsumerClocks(position.encoding)

    @property
    def num_frames(self) -> int:
        return len(self.detections_per_frame)

    def as_record(self) -> dict[str, Any]:
        """Plain values, for a file; `from_record` reads them."""
        return {
            "numbers": {name: getattr(self, name) for name in _NUMBERS},
            "clocks": {
                thread: {
                    name: [clock.wall_ns, clock.cpu_ns] for name, clock in clocks.by_name().items()
                }
                for thread, clocks in (("producer", self.producer), ("consumer", self.consumer))
            },
            "queues": {name: asdict(getattr(self, name)) for name in _QUEUES},
            "thread_cpu_seconds": self.thread_cpu_seconds,
            "detections_per_frame": self.detections_per_frame.tolist(),
            "finished_seconds": [round(seconds, 3) for seconds in self.finished_seconds],
            "detections_per_class": {str(k): n for k, n in self.detections_per_class.items()},
            "audit": self.audit.as_record(),
        }

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> RunStats:
        """Raises KeyError, TypeError or ValueError for what is not such a record."""
        stats = cls(**{name: record["numbers"][name] for name in _NUMBERS})
        for thread, clocks in (("producer", stats.producer), ("consumer", stats.consumer)):
            for name, (wall_ns, cpu_ns) in record["clocks"][thread].items():
                clock = clocks.by_name()[name]
                clock.wall_ns, clock.cpu_ns = wall_ns, cpu_ns
        for name in _QUEUES:
            setattr(stats, name, Occupancy(**record["queues"][name]))
        stats.thread_cpu_seconds = {
            str(k): float(v) for k, v in record["thread_cpu_seconds"].items()
        }
        stats.detections_per_frame = array("H", record["detections_per_frame"])
        stats.finished_seconds = array("f", record["finished_seconds"])
        per_class = record["detections_per_class"]
        stats.detections_per_class = Counter({int(k): n for k, n in per_class.items()})
        stats.audit = Audit.from_record(record["audit"])
        return stats

    def add(self, other: RunStats, start_seconds: float) -> None:
        """Count in another part of the same work, which began so long after the first one.

        Times are added up: those of parts done at the same time count each.
        """
        for name in _NUMBERS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for ours, theirs in ((self.producer, other.producer), (self.consumer, other.consumer)):
            _add_clocks(ours, theirs)
        for name in _QUEUES:
            ours, theirs = getattr(self, name), getattr(other, name)
            ours.limit = theirs.limit
            ours.maximum = max(ours.maximum, theirs.maximum)
            ours.sum += theirs.sum
            ours.count += theirs.count
        _add_seconds(self.thread_cpu_seconds, other.thread_cpu_seconds)
        self.detections_per_frame.extend(other.detections_per_frame)
        self.finished_seconds.extend(start_seconds + s for s in other.finished_seconds)
        self.detections_per_class.update(other.detections_per_class)
        self.audit.add(other.audit)

    def add_pass(self, other: RunStats) -> None:
        """Count in a second pass over the same frames: its times, not its frames."""
        for ours, theirs in ((self.producer, other.producer), (self.consumer, other.consumer)):
            _add_clocks(ours, theirs)
        self.frames_wall_seconds += other.frames_wall_seconds
        self.frames_cpu_seconds += other.frames_cpu_seconds
        _add_seconds(self.thread_cpu_seconds, other.thread_cpu_seconds)

    def add_tracking(self, wall_seconds: float, cpu_seconds: float) -> None:
        """Count in the time in which tracks were found, on the thread that encodes."""
        self.consumer.track.wall_ns += round(1e9 * wall_seconds)
        self.consumer.track.cpu_ns += round(1e9 * cpu_seconds)
        self.frames_wall_seconds += wall_seconds
        self.frames_cpu_seconds += cpu_seconds
        _add_seconds(self.thread_cpu_seconds, {ENCODING_THREAD: cpu_seconds})

    def note_frame(self, class_id: NDArray[np.int64], seconds_since_start: float) -> None:
        self.detections_per_frame.append(min(len(class_id), 65535))
        self.finished_seconds.append(seconds_since_start)
        self.detections_per_class.update(class_id.tolist())


def _add_clocks(ours: _Clocks, theirs: _Clocks) -> None:
    for name, clock in ours.by_name().items():
        clock.wall_ns += theirs.by_name()[name].wall_ns
        clock.cpu_ns += theirs.by_name()[name].cpu_ns


def _add_seconds(ours: dict[str, float], theirs: dict[str, float]) -> None:
    for name, seconds in theirs.items():
        ours[name] = ours.get(name, 0.0) + seconds


_NUMBERS = (
    "inferred_frames",
    "inferred_parts",
    "reused_frames",
    "callback_wall_ns",
    "callback_cpu_ns",
    "latency_seconds_sum",
    "frames_wall_seconds",
    "frames_cpu_seconds",
    "decoding_thread_cpu_ns",
)
_QUEUES = ("requests_running", "completed", "reorder", "in_flight")
