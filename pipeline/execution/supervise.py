"""Runs work in a child process; the parent supervises it, reports how it died, and cleans up.

FFmpeg, the model or the kernel may end a process at any moment; the parent then reports what
happened. Nothing heavy may be imported here: that keeps the fork cheap and safe.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Generic

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import (
    InputError,
    Interrupted,
    WorkerDied,
)
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.execution.child import STOPPING_SIGNALS, Done, Failed, Result, Work
from pipeline.execution.child_process import Child, start_child, stopping_signals_blocked
from pipeline.execution.endings import death, interruption
from pipeline.execution.journal import tidy
from pipeline.execution.watchdog import POLL_SECONDS, Watchdog

_STOP_SECONDS = 3.5
_SAME_SIGNAL_SECONDS = 0.3
_CLEAN_UP_SECONDS = 5.0


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
    """A child process that does one run after the other; for the main thread only.

    work: a function of a module, or an object that can be pickled, called in the child as
        work(config, on_progress, position) for every run; what it keeps is there for the next.
    at_end: called in the child before it ends in order.

    The child begins with the first run. One that died, or did not end a run as it should, is
    replaced for the next one. SIGINT, SIGTERM and SIGHUP are caught as long as the context lasts,
    but for those that are ignored (nohup): the first of them asks the work to stop, by a
    KeyboardInterrupt; a later one, or too long a wait, kills the child.
    """

    def __init__(self, work: Work[Result], at_end: Callable[[], object] = _do_nothing) -> None:
        self._work = work
        self._at_end = at_end
        self._child: Child | None = None
        self._stop = _Stop()
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
        self.require_not_stopped()
        creates = not config.output_dir.exists()
        child = self._living_child()
        answer: Done[Result] | Failed | None = None
        kept = ""
        try:
            answer = _answer(child, config, on_progress, self._stop)
        except WorkerDied as error:
            answer = Failed(error, None, cleaned_up=False)
        finally:
            if answer is None or (isinstance(answer, Failed) and not answer.cleaned_up):
                self._let_go(kill=True)
            elif not _is_sound(answer):
                self._let_go(kill=False)
            if not isinstance(answer, Done):
                kept = tidy(config.output_dir, created=creates)
        if isinstance(answer, Done):
            return answer.result
        if self._stop.signal_number is not None:
            raise interruption(answer.error, self._stop.signal_number, kept)
        if kept and not answer.cleaned_up:
            answer.error.args = (f"{answer.error.args[0]}; {kept}",)
        raise answer.error from answer.cause

    def _living_child(self) -> Child:
        if self._child is not None and not self._child.process.is_alive():
            self._let_go(kill=True)
        if self._child is None:
            self._child = _start(self._work, self._at_end, self._stop)
        return self._child

    def _let_go(self, *, kill: bool) -> None:
        """End the child, if there is one: in order, or at once."""
        child, self._child = self._child, None
        if child is None:
            return
        child.end(kill=kill)
        self._stop.process = None
        child.process.close()


def _start(work: Work[Any], at_end: Callable[[], object], stop: _Stop) -> Child:
    # Held back, so that a signal does not miss the process that it has to stop.
    with stopping_signals_blocked():
        child = start_child(work, at_end, _context())
        stop.process = child.process
    return child


def _is_sound(answer: Done[Any] | Failed) -> bool:
    """Whether the child can be trusted with another run: nothing of this one hangs in it."""
    return isinstance(answer, Done) or isinstance(answer.error, InputError)


class _Stop:
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
        at_once = time.monotonic() - self._first_at < _SAME_SIGNAL_SECONDS
        return at_once and number == self.signal_number


def _answer(
    child: Child, config: ProcessConfig, on_progress: ProgressCallback, stop: _Stop
) -> Done[Any] | Failed:
    """Have a run done. Raises WorkerDied."""
    try:
        child.pipe.send(config)
    except OSError:
        raise death(child.exit_code(), child.position, config) from None
    return _Watch(child, config, on_progress, stop).answer()


class _Watch:
    """The wait for the answer of a child to one run."""

    def __init__(
        self, child: Child, config: ProcessConfig, on_progress: ProgressCallback, stop: _Stop
    ) -> None:
        assert child.process.pid is not None
        self._child = child
        self._config = config
        self._on_progress = on_progress
        self._stop = stop
        self._watchdog = Watchdog(child.process.pid, child.position, config)
        self._stop_at: float | None = None
        self._failed: Failed | None = None
        self._failed_at = 0.0

    def answer(self) -> Done[Any] | Failed:
        """Pass progress on until the child answers, or has failed and does not finish cleaning up.

        Raises WorkerDied.
        """
        pipe, process = self._child.pipe, self._child.process
        while True:
            ready = wait([pipe, process.sentinel], POLL_SECONDS)
            message = None
            if pipe in ready:
                with contextlib.suppress(EOFError, OSError):
                    message = pipe.recv()
            if ready and message is None:
                if self._failed is not None:
                    return self._failed
                raise death(self._child.exit_code(), self._child.position, self._config)
            if isinstance(message, Done) or (isinstance(message, Failed) and message.cleaned_up):
                return message
            if message is not None:
                self._note(message)
            if self._is_over(quiet=not ready):
                assert self._failed is not None
                return self._failed

    def _note(self, message: Failed | Progress) -> None:
        """Progress, or a failure that the child is still cleaning up."""
        if not isinstance(message, Failed):
            self._on_progress(message)
            self._watchdog.progressed()
        elif self._failed is None:
            self._failed, self._failed_at = message, time.monotonic()
            if message.error.step is not None:
                message.error.file = self._config.source_name

    def _is_over(self, *, quiet: bool) -> bool:
        """Whether a child that failed has had its time to clean up. Raises WorkerDied."""
        if self._stop.signal_number is not None:
            self._stop_at = self._stop_at or time.monotonic() + _STOP_SECONDS
            if time.monotonic() >= self._stop_at:
                raise WorkerDied("the worker did not stop in time and was killed")
        elif self._failed is not None:
            return time.monotonic() - self._failed_at >= _CLEAN_UP_SECONDS
        elif quiet:
            self._watchdog.look()
        return False


def _context() -> ForkContext | SpawnContext:
    """A fork where it is safe, in a process with one thread; else a new interpreter."""
    try:
        single_threaded = len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        single_threaded = False  # Elsewhere than on Linux, forks are not safe anyway.
    if single_threaded:
        return multiprocessing.get_context("fork")
    return multiprocessing.get_context("spawn")
