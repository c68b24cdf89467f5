"""Runs work in a child process; the parent supervises it, reports how it died, and cleans up.

FFmpeg, the model or the kernel may end a process at any moment; the parent then reports what
happened. Nothing heavy may be imported here: that keeps the fork cheap and safe.
"""

from __future__ import annotations

import contextlib
import dataclasses
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.context import ForkContext, SpawnContext
from pathlib import Path
from typing import Generic

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InputError, Interrupted, PipelineError, WorkerDied
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.execution.child import STOPPING_SIGNALS, Done, Failed, Result, Work
from pipeline.execution.child_process import start_child, stopping_signals_blocked
from pipeline.execution.endings import interruption
from pipeline.execution.journal import tidy
from pipeline.execution.watch import LivingChild, Run, Stop


def _do_nothing() -> None:
    """For a child that keeps nothing."""


def supervise(work: Work[Result], config: ProcessConfig, on_progress: ProgressCallback) -> Result:
    """Do one piece of work in a child process and return its result; for the main thread only.

    Raises as `ChildProcess.run`; Interrupted also for a signal that came when the work was done.
    """
    with ChildProcess(work) as child:
        result = child.run(config, on_progress)
    child.require_not_stopped()
    return result


class ChildProcess(Generic[Result]):
    """A child process that does one run after the other, or some at once; for the main thread only.

    work: a function of a module, or an object that can be pickled, called in the child as
        work(config, on_progress, position) for every run; what it keeps is there for the next.
    at_end: called in the child before it ends in order.
    num_at_once: the runs that may be under way; if it is more than one, each has a thread of its
        own in the child.

    The child begins with the first run. One that died, or did not end a run as it should, is
    replaced for the next one. SIGINT, SIGTERM and SIGHUP are caught as long as the context lasts,
    but for those that are ignored (nohup): the first of them asks the work to stop, by a
    KeyboardInterrupt, or ends the child if its runs have threads of their own; a later one, or
    too long a wait, kills the child.
    """

    def __init__(
        self,
        work: Work[Result],
        at_end: Callable[[], object] = _do_nothing,
        num_at_once: int = 1,
    ) -> None:
        self._work = work
        self._at_end = at_end
        self._num_at_once = num_at_once
        self._child: LivingChild | None = None
        self._stop = Stop()
        self._handlers = contextlib.ExitStack()

    def __enter__(self) -> ChildProcess[Result]:
        with stopping_signals_blocked():
            for number in STOPPING_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before = signal.signal(number, self._stop)
                    self._handlers.callback(signal.signal, number, before)
        return self

    def __exit__(self, *_: object) -> None:
        with self._handlers:
            self._let_go(kill=False)

    def require_not_stopped(self) -> None:
        """Raise Interrupted if a signal came, though the last run is complete."""
        if self._stop.signal_number is not None:
            error = Interrupted("interrupted when the output was complete")
            error.signal_number = self._stop.signal_number
            raise error

    def run(self, config: ProcessConfig, on_progress: ProgressCallback) -> Result:
        """Do the work and return its result.

        Raises the PipelineError that the work raised; WorkerDied if the child died, or hung and
        was killed; Interrupted if a signal came before the result. In all these cases what the
        child left behind is removed.
        """
        ((_, outcome),) = self.run_each([config], lambda _, progress: on_progress(progress))
        if isinstance(outcome, PipelineError):
            raise outcome
        return outcome

    def run_each(
        self, configs: Iterable[ProcessConfig], on_progress: Callable[[int, Progress], None]
    ) -> Iterator[tuple[int, Result | PipelineError]]:
        """Do the work for each config; yield its number, and its result or error, as it ends.

        on_progress: called with the number of the config. Where the child dies with several runs
        under way, each of them is begun again alone: then it is known which one caused it. What
        failed runs left behind is removed. Raises Interrupted.
        """
        waiting = _Waiting(configs)
        try:
            while (child := self._begin(waiting)) is not None:
                (run, answer), *more = child.next_ended(on_progress)
                if more and self._stop.signal_number is None:
                    self._let_go(kill=True)
                    waiting.begin_alone([run, *(other for other, _ in more)])
                    continue
                for other, _ in more:
                    tidy(other.config.output_dir, created=other.creates)
                yield run.number, self._outcome(run, answer, waiting)
        finally:
            if self._child is not None and (left := self._child.under_way):
                self._let_go(kill=True)
                for run in left:
                    tidy(run.config.output_dir, created=run.creates)

    def _begin(self, waiting: _Waiting) -> LivingChild | None:
        """Begin as many runs as may be under way; the child, None when all runs have ended."""
        under_way = self._child.under_way if self._child is not None else []
        while (run := waiting.next(under_way, self._num_at_once)) is not None:
            self.require_not_stopped()
            self._living_child().begin(run)
            under_way = [*under_way, run]
        return self._child if under_way else None

    def _outcome(
        self, run: Run, answer: Done[Result] | Failed, waiting: _Waiting
    ) -> Result | PipelineError:
        """The result or the error of a run that has ended. Raises Interrupted."""
        if isinstance(answer, Done):
            return answer.result
        others = self._child.under_way if self._child is not None else []
        if not answer.cleaned_up or (others and not _is_sound(run, answer)):
            self._let_go(kill=True)
            waiting.begin_again(others)
        elif not _is_sound(run, answer):
            self._let_go(kill=False)
        kept = tidy(run.config.output_dir, created=run.creates)
        if self._stop.signal_number is not None:
            raise interruption(answer.error, self._stop.signal_number, kept)
        if kept and not answer.cleaned_up:
            answer.error.args = (f"{answer.error.args[0]}; {kept}",)
        answer.error.__cause__ = answer.cause
        return answer.error

    def _living_child(self) -> LivingChild:
        child = self._child
        if child is not None and not child.under_way and not child.is_alive():
            self._let_go(kill=True)
        if self._child is None:
            self._child = self._start()
        return self._child

    def _start(self) -> LivingChild:
        # Held back, so that a signal does not miss the process that it has to stop.
        with stopping_signals_blocked():
            child = start_child(self._work, self._at_end, _context(), self._num_at_once)
            self._stop.process = child.process
        return LivingChild(child, self._stop)

    def _let_go(self, *, kill: bool) -> None:
        """End the child, if there is one: in order, or at once."""
        child, self._child = self._child, None
        if child is not None:
            child.end(kill=kill)
            self._stop.process = None
            child.close()


class _Waiting:
    """The runs that have not begun yet, or are to begin again."""

    def __init__(self, configs: Iterable[ProcessConfig]) -> None:
        self._configs = enumerate(configs)
        self._again: deque[Run] = deque()
        self._alone: deque[Run] = deque()

    def next(self, under_way: Sequence[Run], most: int) -> Run | None:
        """The run to begin beside those under way; None if there is none now."""
        if any(run.alone for run in under_way) or len(under_way) >= most:
            return None
        if self._alone:
            return None if under_way else self._alone.popleft()
        if self._again:
            return self._again.popleft()
        for number, config in self._configs:
            return Run(number, config, creates=not config.output_dir.exists())
        return None

    def begin_again(self, runs: Iterable[Run]) -> None:
        self._again.extend(runs)

    def begin_alone(self, runs: Iterable[Run]) -> None:
        self._alone.extend(dataclasses.replace(run, alone=True) for run in runs)


def _is_sound(run: Run, answer: Failed) -> bool:
    """Whether the child can be trusted with another run: nothing of this one hangs in it.

    What it says itself to have died is a process that it had started beside others.
    """
    died_elsewhere = answer.cleaned_up and run.config.cluster is None
    return isinstance(answer.error, InputError) or (
        died_elsewhere and isinstance(answer.error, WorkerDied)
    )


def _context() -> ForkContext | SpawnContext:
    """A fork where it is safe, in a process with one thread; else a new interpreter."""
    try:
        single_threaded = len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        single_threaded = False  # Elsewhere than on Linux, forks are not safe anyway.
    if single_threaded:
        return multiprocessing.get_context("fork")
    return multiprocessing.get_context("spawn")
