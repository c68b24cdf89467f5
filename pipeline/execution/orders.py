"""What one caller wants done by processes side by side, piece by piece, and what comes of it.

Imports nothing heavy, as `supervise`.
"""

from __future__ import annotations

import bisect
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from pipeline.core.config import ProcessConfig
from pipeline.core.notes import note
from pipeline.core.position import Beat
from pipeline.execution.child import Done, Failed
from pipeline.execution.watchdog import POLL_SECONDS

Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class Job(Generic[Argument]):
    """num_reported: the most frames that any attempt finished. num_lost: attempts that died."""

    order: Order[Argument, Any]
    number: int
    argument: Argument
    num_reported: int = 0
    num_lost: int = 0


class Order(Generic[Argument, Result]):
    """The work of one caller, who waits for its results.

    config: of the run that it belongs to, for limits and messages. needed_mb: of memory for the
    frames of each piece of work that runs.

    num_turns: how often who hands out work has looked at it: every POLL_SECONDS at least, while
    something works. is_over: whether the caller waits no more. ended: set when nothing works for
    it any more. lost: the cores of processes that died at it.
    """

    def __init__(
        self, arguments: Sequence[Argument], config: ProcessConfig, needed_mb: int = 0
    ) -> None:
        self.config = config
        self.needed_mb = needed_mb
        self.num_turns = self._turns_seen = 0
        self.is_over = False
        self.ended = threading.Event()
        self.lost: list[Sequence[int]] = []
        self._num_left = len(arguments)
        self._said: SimpleQueue[int | str | Failed | tuple[int, Done[Result]]] = SimpleQueue()
        self._asked_at = time.perf_counter()
        self._began_at: float | None = None
        self._waiting = [Job(self, number, given) for number, given in enumerate(arguments)]
        self._running: Counter[int] = Counter()

    # For the caller

    @property
    def waited_seconds(self) -> float:
        """How long the first piece of work waited for a process."""
        return (self._began_at or time.perf_counter()) - self._asked_at

    def results(
        self, on_frames: Callable[[int], object], beat: Beat
    ) -> Iterator[tuple[int, Result]]:
        """The number of each argument with its result, as soon as that is there.

        on_frames: called with the number of frames that were finished since the last call. beat:
        called regularly. Raises the PipelineError of a piece of work.
        """
        while self._num_left:
            beat()
            try:
                said = self._said.get(timeout=POLL_SECONDS)
            except Empty:
                continue
            if isinstance(said, int):
                on_frames(said)
            elif isinstance(said, str):
                note(said)
            elif isinstance(said, Failed):
                raise said.error from said.cause
            else:
                self._num_left -= 1
                yield said[0], said[1].result

    def beat_after_turn(self, beat: Beat) -> None:
        """Beat if who hands out work has come by again.

        Where that is blocked, who watches this process sees no progress, although this one waits.
        """
        if self.num_turns != self._turns_seen:
            self._turns_seen = self.num_turns
            beat()

    # For the processes

    @property
    def is_waiting(self) -> bool:
        return bool(self._waiting)

    @property
    def num_running(self) -> int:
        return self._running.total()

    def take(self, after: int | None) -> Job[Argument]:
        """The piece of work for a process that has done the one of number `after`, if any here.

        That is the next one, where nobody else has it: then a clip is simply read on. Else it is
        one from which many follow that are far from what others do.
        """
        place = None if after is None else self._place_of(after + 1)
        if place is None:
            place = self._place_apart()
        job = self._waiting.pop(place)
        self._running[job.number] += 1
        self._began_at = self._began_at or time.perf_counter()
        return job

    def _place_of(self, number: int) -> int | None:
        place = bisect.bisect_left(self._waiting, number, key=lambda job: job.number)
        found = place < len(self._waiting) and self._waiting[place].number == number
        return place if found else None

    def _place_apart(self) -> int:
        """The first place of the longest stretch; its middle if another process comes there."""
        numbers = [job.number for job in self._waiting]
        bounds = [0, *(n for n in range(1, len(numbers)) if numbers[n] != numbers[n - 1] + 1)]
        ends = [*bounds[1:], len(numbers)]
        begin, end = max(
            zip(bounds, ends, strict=True), key=lambda stretch: stretch[1] - stretch[0]
        )
        return (begin + end) // 2 if self._running[numbers[begin] - 1] else begin

    def finish(self, job: Job[Argument], answer: Done[Result]) -> None:
        self._running[job.number] -= 1
        self._said.put((job.number, answer))

    def take_back(self, job: Job[Argument]) -> None:
        """Let another process do what one that died had."""
        self._running[job.number] -= 1
        bisect.insort(self._waiting, job, key=lambda other: other.number)

    def tell(self, said: int | str) -> None:
        """Of so many more finished frames, or a note."""
        self._said.put(said)

    def fail(self, failed: Failed) -> None:
        self._waiting.clear()
        self._said.put(failed)
