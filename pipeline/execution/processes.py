"""Child processes on this machine that work side by side, each on cores of its own.

Imports nothing heavy, as `supervise`.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from queue import Empty, SimpleQueue
from typing import Any, Generic

from pipeline.core.closing import Closing
from pipeline.core.config import MOST_ATTEMPTS, ProcessConfig
from pipeline.core.errors import (
    InputError,
    Interrupted,
    PipelineError,
    WorkerDied,
    as_pipeline_error,
)
from pipeline.core.position import Beat, Position
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.core.text import counted
from pipeline.execution.child import Done, Failed
from pipeline.execution.child_process import Child, start_on_cores
from pipeline.execution.endings import death
from pipeline.execution.orders import Argument, Job, Order, Result
from pipeline.execution.watchdog import POLL_SECONDS, Watchdog

_CLEAN_UP_SECONDS = 5.0


@dataclass(eq=False, slots=True)
class _Member(Generic[Argument]):
    """A process of the group.

    job: what it works on, or did last. watchdog: of this work. failed: what the process said of
    its failure, since failed_at, before it cleaned up.
    """

    child: Child
    cores: Sequence[int]
    job: Job[Argument] | None = None
    watchdog: Watchdog | None = None
    failed: Failed | None = None
    failed_at: float = 0.0


class SideBySide(Closing, Generic[Argument, Result]):
    """A group of processes, each of which does one piece of work at a time.

    work: called there as work(argument, on_progress, position); can be pickled. What it keeps is
    there for its next call. cores: the ids of the cores of each process, whose libraries find no
    others.

    Any thread may ask for results; what several ask for is done at the same time. A process starts
    with its first piece of work. One that dies or hangs is not replaced before the results of that
    work are there, because memory may be short: its work goes to the others. A context manager,
    which kills them all.
    """

    def __init__(
        self,
        work: Callable[[Argument, ProgressCallback, Position], Result],
        cores: Sequence[Sequence[int]],
    ) -> None:
        self._asked: SimpleQueue[Order[Argument, Result] | None] = SimpleQueue()
        self._wakes, self._wake = multiprocessing.Pipe(duplex=False)
        self._group = _Group(work, cores, self._asked, self._wakes)
        self._thread = threading.Thread(target=self._group.run, name="processes", daemon=True)
        self._starting = threading.Lock()

    def close(self) -> None:
        if self._thread.is_alive():
            self._ask(None)
            self._thread.join()

    def results(
        self,
        arguments: Iterable[Argument],
        on_frames: Callable[[int], object],
        config: ProcessConfig,
        beat: Beat,
        needed_mb: int = 0,
    ) -> Generator[tuple[int, Result], None, None]:
        """As `take`."""
        order: Order[Argument, Result] = Order([*arguments], config, needed_mb)
        yield from self.take(order, on_frames, beat)

    def take(
        self, order: Order[Argument, Result], on_frames: Callable[[int], object], beat: Beat
    ) -> Generator[tuple[int, Result], None, None]:
        """The number of each argument with its result, as soon as that is there.

        on_frames: called with the number of frames that were finished since the last call. beat:
        called regularly while they work. Raises the PipelineError of a piece of work; WorkerDied
        if no process is left, or if one piece of work was lost several times. The others, and what
        others asked for, go on; what works for this order is ended then.
        """
        if not order.is_waiting:
            return
        with self._starting:
            if self._thread.ident is None:
                self._thread.start()
        self._ask(order)
        watched_beat = functools.partial(self._beat_if_alive, order, beat)
        try:
            yield from order.results(on_frames, watched_beat)
        finally:
            order.is_over = True
            self._ask(order)
            while not order.ended.wait(POLL_SECONDS) and self._thread.is_alive():
                order.beat_after_turn(beat)

    def _beat_if_alive(self, order: Order[Argument, Result], beat: Beat) -> None:
        """Raise PipelineError where nobody hands out work any more, and no result would come."""
        if not self._thread.is_alive():
            raise self._group.why_over()
        order.beat_after_turn(beat)

    def _ask(self, order: Order[Argument, Result] | None) -> None:
        self._asked.put(order)
        self._wake.send_bytes(b"1")


class _Group(Generic[Argument, Result]):
    """The processes, as the one thread sees them that hands out work.

    asked: orders, once when they come and once when they are over; None is the end.
    """

    def __init__(
        self,
        work: Callable[[Argument, ProgressCallback, Position], Result],
        cores: Sequence[Sequence[int]],
        asked: SimpleQueue[Order[Argument, Result] | None],
        wakes: Connection[Any, Any],
    ) -> None:
        self._work = work
        self._asked, self._wakes = asked, wakes
        self._unstarted = list(reversed(cores))
        self._idle: list[_Member[Argument]] = []
        self._busy: list[_Member[Argument]] = []
        self._orders: list[Order[Argument, Result]] = []
        self._broken: BaseException | None = None

    def why_over(self) -> PipelineError:
        """Why no work is handed out any more."""
        broken = self._broken
        return Interrupted("interrupted") if broken is None else as_pipeline_error(broken)

    def run(self) -> None:
        try:
            next_look = time.monotonic() + POLL_SECONDS
            while self._note_orders():
                for order in self._orders:
                    order.num_turns += 1
                self._assign()
                pipes = [member.child.pipe for member in self._busy]
                ready = wait([self._wakes, *pipes], POLL_SECONDS if pipes else None)
                for member in [m for m in self._busy if m.child.pipe in ready]:
                    if member in self._busy:
                        self._hear(member)
                if time.monotonic() >= next_look:
                    next_look = time.monotonic() + POLL_SECONDS
                    self._look()
        except BaseException as error:
            self._broken = error
        finally:
            self._end([*self._idle, *self._busy])
            for order in self._orders:
                order.fail(Failed(self.why_over(), None))
                order.ended.set()

    def _note_orders(self) -> bool:
        """Take in orders that came, and let go of those that are over; whether there is no end."""
        while self._wakes.poll():
            self._wakes.recv_bytes()
        with contextlib.suppress(Empty):
            while (order := self._asked.get_nowait()) is not None:
                if not order.is_over:
                    self._orders.append(order)
                elif order in self._orders:
                    self._let_go(order)
                else:
                    order.ended.set()  # It was over before it was seen.
            return False
        return True

    def _let_go(self, order: Order[Argument, Result]) -> None:
        self._orders.remove(order)
        members = [m for m in self._busy if m.job is not None and m.job.order is order]
        self._end(members)
        self._unstarted += [*order.lost, *(member.cores for member in members)]
        order.ended.set()

    def _end(self, members: Sequence[_Member[Argument]]) -> None:
        self._busy = [member for member in self._busy if member not in members]
        for member in members:
            member.child.process.kill()
        for member in members:
            member.child.end(kill=True)

    # Work for the processes

    def _assign(self) -> None:
        for member in [m for m in self._idle if not m.child.process.is_alive()]:
            # It was killed after its work, for which what comes next is not to blame.
            self._idle.remove(member)
            member.child.end(kill=True)
            self._unstarted.append(member.cores)
        while (self._idle or self._unstarted) and (order := self._next_order()) is not None:
            try:
                member, job = self._member_and_job(order)
            except OSError as error:
                reason = f"a process cannot be started ({error.strerror or error})"
                order.fail(Failed(WorkerDied(f"{reason}; --segments-at-once 1 needs none"), None))
                continue
            self._begin(member, job)

    def _next_order(self) -> Order[Argument, Result] | None:
        """The first one that has no process yet; else the first one with work."""
        waiting = [order for order in self._orders if order.is_waiting]
        order = min(waiting, key=lambda order: bool(order.num_running), default=None)
        return order if order is not None and self._has_memory_for(order) else None

    def _has_memory_for(self, order: Order[Argument, Result]) -> bool:
        taken_mb = sum(other.needed_mb * other.num_running for other in self._orders)
        most_mb = order.config.limits.max_memory_mb
        return not self._busy or taken_mb + order.needed_mb <= most_mb

    def _member_and_job(
        self, order: Order[Argument, Result]
    ) -> tuple[_Member[Argument], Job[Argument]]:
        """A process for a piece of work: one that was at the same clip, if there is one.

        Raises OSError if none can be started.
        """
        known = [m for m in self._idle if m.job is not None and m.job.order is order]
        member = next(iter(known or self._idle), None)
        if member is None:
            cores = self._unstarted[-1]
            child = start_on_cores(self._work, cores)
            self._unstarted.pop()
            return _Member(child, cores), order.take(None)
        self._idle.remove(member)
        last = member.job.number if known and member.job is not None else None
        return member, order.take(last)

    def _begin(self, member: _Member[Argument], job: Job[Argument]) -> None:
        child = member.child
        assert child.process.pid is not None
        member.job, member.failed = job, None
        member.watchdog = Watchdog(child.process.pid, child.positions[0], job.order.config)
        self._busy.append(member)
        try:
            child.pipe.send((0, job.argument))
        except ConnectionError:
            self._lose(member, _death(member, job))
        except OSError as error:  # Of a file that is read to be sent.
            self._busy.remove(member)
            self._idle.append(member)
            job.order.fail(Failed(as_pipeline_error(error), None))

    # Their answers

    def _hear(self, member: _Member[Argument]) -> None:
        """Take one message of a process."""
        job = member.job
        assert job is not None
        assert member.watchdog is not None
        try:
            _, message = member.child.pipe.recv()
        except (EOFError, OSError):
            self._lose(member, _death(member, job))
            return
        member.watchdog.progressed()
        if isinstance(message, Progress):
            job.order.tell(max(0, message.done - job.num_reported))
            job.num_reported = max(message.done, job.num_reported)
        elif isinstance(message, Failed) and isinstance(message.error, Interrupted):
            self._lose(member, WorkerDied("a process was ended by a signal"))
        elif isinstance(message, Failed) and not message.cleaned_up:
            member.failed, member.failed_at = message, time.monotonic()
        else:
            self._answered(member, job, message)

    def _answered(
        self, member: _Member[Argument], job: Job[Argument], answer: Done[Result] | Failed
    ) -> None:
        if isinstance(answer, Done) or isinstance(answer.error, InputError):
            self._busy.remove(member)
            self._idle.append(member)
        else:  # Something of it may hang in there.
            self._end([member])
            self._unstarted.append(member.cores)
        if isinstance(answer, Failed):
            job.order.fail(answer)
        else:
            job.order.finish(job, answer)

    def _look(self) -> None:
        for member in [*self._busy]:
            if member.failed is not None and member.job is not None:
                if time.monotonic() - member.failed_at > _CLEAN_UP_SECONDS:
                    member.job.order.fail(member.failed)  # Who asked then ends the process.
                continue
            try:
                assert member.watchdog is not None
                member.watchdog.look()
            except WorkerDied as error:
                self._lose(member, error)

    def _lose(self, member: _Member[Argument], error: WorkerDied) -> None:
        """Continue without a process, if that is possible."""
        job = member.job
        assert job is not None
        self._end([member])
        job.order.lost.append(member.cores)
        job.num_lost += 1
        num_left = len(self._busy) + len(self._idle) + len(self._unstarted)
        if not num_left or job.num_lost == MOST_ATTEMPTS:
            job.order.fail(Failed(error, None))
            return
        left = counted(num_left, "process", "processes")
        error.file = None  # A note is one of its clip.
        job.order.tell(f"{error}; the run continues with {left}")
        job.order.take_back(job)


def _death(member: _Member[Any], job: Job[Any]) -> WorkerDied:
    child = member.child
    return death(child.exit_code(), child.positions[0], job.order.config)
