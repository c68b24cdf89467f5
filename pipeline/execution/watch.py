"""The child process as its parent sees it: its runs, their answers, and whether it lives.

Imports nothing heavy, as `supervise`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import WorkerDied
from pipeline.core.progress import Progress
from pipeline.execution.child import Done, Failed
from pipeline.execution.child_process import Child
from pipeline.execution.endings import death
from pipeline.execution.watchdog import POLL_SECONDS, Watchdog

STOP_SECONDS = 3.5
"""How long a worker has to stop; the command ends within five seconds."""
SAME_SIGNAL_SECONDS = 0.3
"""A signal that comes again so soon is the first one: a terminal sends it to parent and group."""
_CLEAN_UP_SECONDS = 5.0

Answer = Done[Any] | Failed


class Stop:
    """The handler of the signals that stop a run: the first asks the worker, the second kills.

    The same one at once after the first is part of it: Ctrl-C reaches all processes of a terminal,
    and some that start others (make, timeout) pass it on.
    """

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.process: BaseProcess | None = None
        self._first_at = 0.0

    def __call__(self, number: int, _: FrameType | None) -> None:
        first = self.signal_number is None
        if first:
            self.signal_number, self._first_at = number, time.monotonic()
        if self.process is None:
            return
        if first:
            self.process.terminate()
        elif not self._is_part_of_first(number):
            self.process.kill()

    def _is_part_of_first(self, number: int) -> bool:
        at_once = time.monotonic() - self._first_at < SAME_SIGNAL_SECONDS
        return at_once and number == self.signal_number


@dataclass(frozen=True, slots=True)
class Run:
    """A piece of work for the child.

    number: its place among all. creates: whether it creates its output folder. alone: whether no
    other may be under way meanwhile.
    """

    number: int
    config: ProcessConfig
    creates: bool
    alone: bool = False


@dataclass(eq=False, slots=True)
class _UnderWay:
    """failed: what the child said of its failure, since failed_at, before it cleaned up."""

    run: Run
    watchdog: Watchdog
    failed: Failed | None = None
    failed_at: float = 0.0


class LivingChild:
    """A child that was started, and the runs that are under way in it.

    stop: whether a signal came.
    """

    def __init__(self, child: Child, stop: Stop) -> None:
        self._child = child
        self._process, self._pipe, self._positions = child.process, child.pipe, child.positions
        self._stop = stop
        self._stop_at: float | None = None
        self._look_at = 0.0
        self._under_way: dict[int, _UnderWay] = {}

    @property
    def under_way(self) -> list[Run]:
        return [under_way.run for under_way in self._under_way.values()]

    def is_alive(self) -> bool:
        return self._process.is_alive()

    def begin(self, run: Run) -> None:
        """Ask for a run; that the child is dead is seen when it is to answer."""
        assert self._process.pid is not None
        place = next(n for n in range(len(self._positions)) if n not in self._under_way)
        watchdog = Watchdog(self._process.pid, self._positions[place], run.config)
        self._under_way[place] = _UnderWay(run, watchdog)
        with contextlib.suppress(OSError):
            self._pipe.send((place, run.config))

    def next_ended(self, on_progress: Callable[[int, Progress], None]) -> list[tuple[Run, Answer]]:
        """The run that ends next, with its answer; all that are under way if the child dies.

        One has also ended if it hangs, or has failed and does not finish cleaning up.
        on_progress: called with the number of a run.
        """
        while True:
            ready = wait([self._pipe, self._process.sentinel], POLL_SECONDS)
            message: tuple[int, Any] | None = None
            if self._pipe in ready:
                with contextlib.suppress(EOFError, OSError):
                    message = self._pipe.recv()
            if ready and message is None:
                return self._died(self._child.exit_code())
            if message is not None:
                place, said = message
                if isinstance(said, Done) or (isinstance(said, Failed) and said.cleaned_up):
                    return [(self._under_way.pop(place).run, said)]
                self._note(self._under_way[place], said, on_progress)
            if (ended := self._over()) is not None:
                return ended

    def _note(
        self,
        under_way: _UnderWay,
        said: Failed | Progress,
        on_progress: Callable[[int, Progress], None],
    ) -> None:
        """Progress, or a failure that the child is still cleaning up."""
        if not isinstance(said, Failed):
            on_progress(under_way.run.number, said)
            under_way.watchdog.progressed()
        elif under_way.failed is None:
            under_way.failed, under_way.failed_at = said, time.monotonic()
            if said.error.step is not None:
                said.error.file = under_way.run.config.source_name

    def _over(self) -> list[tuple[Run, Answer]] | None:
        """What has ended without an answer: a run that has had its time, or all of them."""
        now = time.monotonic()
        if self._stop.signal_number is not None:
            self._stop_at = self._stop_at or now + STOP_SECONDS
            if now < self._stop_at:
                return None
            error = WorkerDied("the worker did not stop in time and was killed")
            return self._all_failed(lambda place: error)
        quiet = now >= self._look_at
        if quiet:
            self._look_at = now + POLL_SECONDS
        for place, under_way in self._under_way.items():
            failed = under_way.failed
            if failed is not None:
                if now - under_way.failed_at < _CLEAN_UP_SECONDS:
                    continue
            elif quiet:
                try:
                    under_way.watchdog.look()
                except WorkerDied as error:
                    failed = Failed(error, None, cleaned_up=False)
            if failed is not None:
                del self._under_way[place]
                return [(under_way.run, failed)]
        return None

    def _died(self, exit_code: int | None) -> list[tuple[Run, Answer]]:
        return self._all_failed(
            lambda place: death(
                exit_code, self._positions[place], self._under_way[place].run.config
            )
        )

    def _all_failed(self, error: Callable[[int], WorkerDied]) -> list[tuple[Run, Answer]]:
        """All runs that are under way, failed: as the child said before, or with that error."""
        ended: list[tuple[Run, Answer]] = [
            (it.run, it.failed or Failed(error(place), None, cleaned_up=False))
            for place, it in self._under_way.items()
        ]
        self._under_way.clear()
        return ended

    def end(self, *, kill: bool) -> None:
        """End the process: in order, or at once."""
        self._child.end(kill=kill)

    def close(self) -> None:
        """Let go of an ended process."""
        self._process.close()
