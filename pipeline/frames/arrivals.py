"""What the threads that decode and infer hand to the one that encodes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any

from pipeline.core.errors import InferenceError
from pipeline.frames.views import Part
from pipeline.inference.engine import Pool
from pipeline.media.frame import Frame

_LEAST_CPU_SECONDS = 0.001
"""Of CPU time between two looks: what uses less is blocked. The share of a process that many others
leave little of the machine to is larger, also where its threads have a niceness."""
_POLL_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Inferred:
    """A part of a frame whose result has come."""

    part: Part
    latency_seconds: float
    callback_wall_ns: int
    callback_cpu_ns: int


@dataclass(frozen=True, slots=True)
class Submitted:
    """A frame of which all parts are being inferred, or were before, in the order of the views."""

    frame: Frame
    parts: list[Part]

    @property
    def is_done(self) -> bool:
        return all(part.is_done for part in self.parts)


@dataclass(frozen=True, slots=True)
class NotInferred:
    """A frame that repeats an inferred one, by its index, or one that is not to be inferred."""

    frame: Frame
    repeats: int | None


@dataclass(frozen=True, slots=True)
class End:
    """There are so many frames; some of them may still come."""

    num_frames: int


@dataclass(frozen=True, slots=True)
class Failure:
    """What failed on another thread."""

    error: BaseException


Arrival = Inferred | Submitted | NotInferred | End | Failure


class Arrivals:
    """The queue; any thread puts, one takes.

    stall_seconds: see `ProcessConfig`.
    """

    def __init__(self, stall_seconds: float) -> None:
        self._stall_seconds = stall_seconds
        self._queue: SimpleQueue[Arrival] = SimpleQueue()
        self._num_submitted = self._num_submitted_taken = 0

    def __len__(self) -> int:
        """How many results wait to be taken."""
        return max(0, self._queue.qsize() - self._num_submitted + self._num_submitted_taken)

    def put(self, arrival: Arrival) -> None:
        if isinstance(arrival, Submitted):  # By the decoding thread only.
            self._num_submitted += 1
        self._queue.put(arrival)

    def take(self, pool: Pool[Any]) -> Arrival:
        """Wait for what comes next. Raises InferenceError if the model has hung.

        pool: of the requests.
        """
        arrival = self._next(pool)
        self._num_submitted_taken += isinstance(arrival, Submitted)
        return arrival

    def _next(self, pool: Pool[Any]) -> Arrival:
        """Wait for what comes next.

        Measured in progress of the threads that infer, because a busy machine or a large input
        takes its time: requests have hung if none finishes while these use no CPU time for the
        limit, or as much of it as all requests may take together.
        """
        limit_seconds = self._stall_seconds
        most_cpu_seconds = limit_seconds * pool.num_requests * pool.batch
        blocked_seconds = spent_seconds = 0.0
        with contextlib.suppress(Empty):
            return self._queue.get(timeout=_POLL_SECONDS)
        before = pool.cpu_seconds()  # A system call per thread: not for every frame.
        while True:
            try:
                return self._queue.get(timeout=_POLL_SECONDS)
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
