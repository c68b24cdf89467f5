"""Child processes on this machine that work side by side, each on cores of its own.

Imports nothing heavy, as `supervise`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import sys
import time
import types
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Generic, TypeVar

from pipeline.core.closing import Closing
from pipeline.core.config import MOST_ATTEMPTS, ProcessConfig
from pipeline.core.cores import on_cores
from pipeline.core.errors import Interrupted, WorkerDied
from pipeline.core.notes import note
from pipeline.core.position import Beat, Position
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.core.text import counted
from pipeline.execution.child import Done, Failed
from pipeline.execution.child_process import Child, start_child
from pipeline.execution.endings import death
from pipeline.execution.watchdog import POLL_SECONDS, Watchdog

Argument = TypeVar("Argument")
Result = TypeVar("Result")


@dataclass(eq=False, slots=True)
class _Job(Generic[Argument]):
    """config: of the run that it belongs to, for limits and messages.

    num_reported: the most frames that any attempt finished. num_lost: attempts that died.
    """

    number: int
    argument: Argument
    config: ProcessConfig
    num_reported: int = 0
    num_lost: int = 0


@dataclass(eq=False, slots=True)
class _Member(Generic[Argument]):
    """A process of the group. job: what it works on; watchdog: of this work."""

    child: Child
    job: _Job[Argument]
    watchdog: Watchdog


class SideBySide(Closing, Generic[Argument, Result]):
    """A group of processes, each of which does one piece of work at a time.

    work: called there as work(argument, on_progress, position); can be pickled. What it keeps is
    there for its next call. cores: the ids of the cores of each process, whose libraries find no
    others.

    A process starts with its first piece of work. One that dies or hangs is not replaced, because
    memory may be short: its work goes to the others. A context manager, which kills them all.
    """

    def __init__(
        self,
        work: Callable[[Argument, ProgressCallback, Position], Result],
        cores: Sequence[Sequence[int]],
    ) -> None:
        self._work = work
        self._num_all = len(cores)
        self._unstarted = deque(cores)
        self._idle: list[Child] = []
        self._busy: list[_Member[Argument]] = []
        self._lost: deque[_Job[Argument]] = deque()

    def close(self) -> None:
        children = [*self._idle, *(member.child for member in self._busy)]
        self._idle, self._busy = [], []
        for child in children:
            child.process.kill()
        for child in children:
            child.end(kill=True)

    @property
    def is_idle(self) -> bool:
        """Whether all processes can take work: none is lost or has ended, and none has any."""
        num_alive = sum(child.process.is_alive() for child in self._idle)
        return num_alive + len(self._unstarted) == self._num_all

    def results(
        self,
        arguments: Iterable[Argument],
        on_frames: Callable[[int], object],
        config: ProcessConfig,
        beat: Beat,
    ) -> Iterator[tuple[int, Result]]:
        """The number of each argument with its result, as soon as that is there.

        on_frames: called with the number of frames that were finished since the last call. config:
        of the run, for limits and messages. beat: called regularly while they work. Raises
        the PipelineError of a piece of work; WorkerDied if no process is left, or if one piece of
        work was lost several times.
        """
        jobs = (_Job(number, argument, config) for number, argument in enumerate(arguments))
        next_look = time.monotonic() + POLL_SECONDS
        while True:
            self._assign(jobs)
            if not self._busy:
                return
            beat()
            ready = wait([member.child.pipe for member in self._busy], POLL_SECONDS)
            for member in [m for m in self._busy if m.child.pipe in ready]:
                answer = self._answer(member, on_frames)
                if answer is not None:
                    yield member.job.number, answer.result
            if time.monotonic() >= next_look:
                next_look = time.monotonic() + POLL_SECONDS
                self._look()

    def _assign(self, jobs: Iterator[_Job[Argument]]) -> None:
        while self._idle or self._unstarted:
            job = self._lost.popleft() if self._lost else next(jobs, None)
            if job is None:
                return
            child = self._idle.pop() if self._idle else self._start(self._unstarted.popleft())
            assert child.process.pid is not None
            watchdog = Watchdog(child.process.pid, child.positions[0], job.config)
            member = _Member(child, job, watchdog)
            self._busy.append(member)
            try:
                child.pipe.send((0, job.argument))
            except OSError:
                self._lose(member, death(child.exit_code(), child.positions[0], job.config))

    def _start(self, cores: Sequence[int]) -> Child:
        # In a new interpreter: a fork would have the threads and cores of OpenVINO here.
        context = multiprocessing.get_context("spawn")
        with on_cores(cores), _without_main_module():
            return start_child(self._work, _nothing, context)

    def _answer(
        self, member: _Member[Argument], on_frames: Callable[[int], object]
    ) -> Done[Result] | None:
        """Take one message of a process; its result, if that is it."""
        child, job = member.child, member.job
        try:
            _, message = child.pipe.recv()
        except (EOFError, OSError):
            self._lose(member, death(child.exit_code(), child.positions[0], job.config))
            return None
        member.watchdog.progressed()
        if isinstance(message, Progress):
            on_frames(max(0, message.done - job.num_reported))
            job.num_reported = max(message.done, job.num_reported)
        elif isinstance(message, Failed) and isinstance(message.error, Interrupted):
            self._lose(member, WorkerDied("a process was ended by a signal"))
        elif isinstance(message, Failed):
            raise message.error from message.cause
        elif isinstance(message, Done):
            self._busy.remove(member)
            self._idle.append(child)
            return message
        return None

    def _look(self) -> None:
        for member in [*self._busy]:
            try:
                member.watchdog.look()
            except WorkerDied as error:
                self._lose(member, error)

    def _lose(self, member: _Member[Argument], error: WorkerDied) -> None:
        """Continue without a process. Raises the error if that is not possible."""
        self._busy.remove(member)
        member.child.end(kill=True)
        member.job.num_lost += 1
        num_left = len(self._busy) + len(self._idle) + len(self._unstarted)
        if not num_left or member.job.num_lost == MOST_ATTEMPTS:
            raise error
        note(f"{error}; the run continues with {counted(num_left, 'process', 'processes')}")
        self._lost.append(member.job)


def _nothing() -> None:
    """At the end of a process, which is killed anyway."""


@contextlib.contextmanager
def _without_main_module() -> Iterator[None]:
    """A new interpreter would import the script of the caller, and so run it once more."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
