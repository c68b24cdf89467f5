"""Runs work in a child process; the parent supervises it, reports how it died, and cleans up.

FFmpeg, the model or the kernel may end a process at any moment; the parent then reports what
happened. Nothing heavy may be imported here: that keeps the fork cheap and safe.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any, Generic, TypeVar

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import (
    InputError,
    Interrupted,
    PipelineError,
    WorkerDied,
    as_pipeline_error,
)
from pipeline.core.position import Position
from pipeline.core.progress import Progress, ProgressCallback
from pipeline.execution.endings import death, interruption
from pipeline.execution.journal import tidy
from pipeline.execution.watchdog import POLL_SECONDS, Watchdog

Result = TypeVar("Result")
Work = Callable[[ProcessConfig, ProgressCallback, Position], Result]

_STOP_SECONDS = 3.5
_EXIT_SECONDS = 2.0
_CLEAN_UP_SECONDS = 5.0
_PROGRESS_SECONDS = 0.1
_STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class _Done(Generic[Result]):
    result: Result


@dataclass(frozen=True, slots=True)
class _Failed:
    """cleaned_up: whether the worker has, before it said so; otherwise its parent will."""

    error: PipelineError
    cause: _WorkerTraceback | None
    cleaned_up: bool = True


def _do_nothing() -> None:
    """For a child that keeps nothing."""


class _WorkerTraceback(Exception):
    """Where an error came from in the worker; as a cause it is shown in the parent's traceback."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def supervise(work: Work[Result], config: ProcessConfig, on_progress: ProgressCallback) -> Result:
    """Do one piece of work in a child process and return its result; for the main thread only.

    As Worker does it, which is told of any signal, so that also one that comes when all is done
    is not lost.
    """
    with Worker(work) as worker:
        result = worker.run(config, on_progress)
    worker.require_not_stopped()
    return result


class Worker(Generic[Result]):
    """A child process that does one run after the other; for the main thread only.

    work: a function of a module, or an object that can be pickled, called in the child as
        work(config, on_progress, position) for every run; what it keeps is there for the next.
    at_end: called in the child before it ends in order.

    The child begins with the first run. One that died, or did not end a run as it should, is
    replaced for the next one. SIGINT, SIGTERM and SIGHUP are caught as long as the context lasts,
    but for those that are ignored (nohup): the first of them asks the work to stop, by a
    KeyboardInterrupt; a second one, or too long a wait, kills the child.
    """

    def __init__(self, work: Work[Result], at_end: Callable[[], object] = _do_nothing) -> None:
        self._work = work
        self._at_end = at_end
        self._child: _Child | None = None
        self._stop = _Stop()
        self._handlers = contextlib.ExitStack()

    def __enter__(self) -> Worker[Result]:
        with _stopping_signals_blocked():
            for number in _STOPPING_SIGNALS:
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
        answer: _Done[Result] | _Failed | None = None
        kept = ""
        try:
            answer = _answer(child, config, on_progress, self._stop)
        except WorkerDied as error:
            answer = _Failed(error, None, cleaned_up=False)
        finally:
            if answer is None or (isinstance(answer, _Failed) and not answer.cleaned_up):
                self._let_go(kill=True)
            elif not _is_sound(answer):
                self._let_go(kill=False)
            if not isinstance(answer, _Done):
                kept = tidy(config.output_dir, created=creates)
        if isinstance(answer, _Done):
            return answer.result
        if self._stop.signal_number is not None:
            raise interruption(answer.error, self._stop.signal_number, kept)
        if kept and not answer.cleaned_up:
            answer.error.args = (f"{answer.error.args[0]}; {kept}",)
        raise answer.error from answer.cause

    def _living_child(self) -> _Child:
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
        if kill:
            child.process.kill()
        with child.pipe, contextlib.suppress(OSError):  # It may be gone already.
            child.pipe.send(None)
        _end(child.process)
        self._stop.process = None
        child.process.close()


@dataclass(frozen=True, slots=True)
class _Child:
    """pipe: configs go there, progress and answers come back."""

    process: BaseProcess
    pipe: Connection[Any, Any]
    position: Position


def _start(work: Work[Any], at_end: Callable[[], object], stop: _Stop) -> _Child:
    context = _context()
    position = Position.shared(context)
    pipe, worker_end = context.Pipe()
    process = context.Process(
        target=_run_worker, args=(work, at_end, position, worker_end), name="worker"
    )
    # Held back, so that neither process is without its own handlers for a moment.
    with _stopping_signals_blocked():
        process.start()
        stop.process = process
    worker_end.close()
    return _Child(process, pipe, position)


def _is_sound(answer: _Done[Any] | _Failed) -> bool:
    """Whether the child can be trusted with another run: nothing of this one hangs in it."""
    return isinstance(answer, _Done) or isinstance(answer.error, InputError)


class _Stop:
    """The handler of the signals that stop a run: the first asks the worker, the second kills."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self.process: BaseProcess | None = None

    def __call__(self, number: int, _: FrameType | None) -> None:
        first = self.signal_number is None
        if first:
            self.signal_number = number
        if self.process is not None:
            if first:
                self.process.terminate()
            else:
                self.process.kill()


def _answer(
    child: _Child, config: ProcessConfig, on_progress: ProgressCallback, stop: _Stop
) -> _Done[Any] | _Failed:
    """Have a run done. Raises WorkerDied."""
    try:
        child.pipe.send(config)
    except OSError:
        raise death(_exit_code(child.process), child.position, config) from None
    return _watch(child.process, child.pipe, child.position, config, on_progress, stop)


def _watch(
    process: BaseProcess,
    messages: Connection[Any, Any],
    position: Position,
    config: ProcessConfig,
    on_progress: ProgressCallback,
    stop: _Stop,
) -> _Done[Any] | _Failed:
    """Pass progress on until the worker answers, or has failed and does not finish cleaning up.

    Raises WorkerDied.
    """
    assert process.pid is not None
    watchdog = Watchdog(process.pid, position, config)
    stop_at: float | None = None
    failed: _Failed | None = None
    failed_at = 0.0
    while True:
        ready = wait([messages, process.sentinel], POLL_SECONDS)
        message = None
        if messages in ready:
            with contextlib.suppress(EOFError, OSError):
                message = messages.recv()
        if ready and message is None:
            if failed is not None:
                return failed
            raise death(_exit_code(process), position, config)
        if isinstance(message, _Done) or (isinstance(message, _Failed) and message.cleaned_up):
            return message
        if isinstance(message, _Failed):
            if failed is None:
                failed, failed_at = message, time.monotonic()
                if failed.error.step is not None:
                    failed.error.file = config.source_name
        elif message is not None:
            on_progress(message)
            watchdog.progressed()
        if stop.signal_number is not None:
            stop_at = stop_at or time.monotonic() + _STOP_SECONDS
            if time.monotonic() >= stop_at:
                raise WorkerDied("the worker did not stop in time and was killed")
        elif failed is not None:
            if time.monotonic() - failed_at >= _CLEAN_UP_SECONDS:
                return failed
        elif not ready:
            watchdog.look()


def _exit_code(process: BaseProcess) -> int | None:
    process.join(_EXIT_SECONDS)
    return process.exitcode


def _end(process: BaseProcess) -> None:
    process.join(_EXIT_SECONDS)
    if process.is_alive():
        process.kill()
        process.join()


def _context() -> ForkContext | SpawnContext:
    """A fork where it is safe, in a process with one thread; else a new interpreter."""
    try:
        single_threaded = len(list(Path("/proc/self/task").iterdir())) == 1
    except OSError:
        single_threaded = False  # Elsewhere than on Linux, forks are not safe anyway.
    if single_threaded:
        return multiprocessing.get_context("fork")
    return multiprocessing.get_context("spawn")


@contextlib.contextmanager
def _stopping_signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _run_worker(
    work: Work[Any], at_end: Callable[[], object], position: Position, pipe: Connection[Any, Any]
) -> None:
    """The child's whole life: every config that comes is answered by a _Done or a _Failed."""
    # Ctrl-C, and the end of a terminal, reach the whole process group; the parent alone decides
    # what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption = _Interruption()
    signal.signal(signal.SIGTERM, interruption)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING_SIGNALS)
    answer: _Done[Any] | _Failed
    while True:
        try:
            with interruption.raised():
                config = pipe.recv()
                if config is None:
                    break
                answer = _work_on(work, config, pipe, position)
        except KeyboardInterrupt:
            answer = _Failed(Interrupted("interrupted"), None)
        with contextlib.suppress(OSError):  # Nobody listens any more.
            pipe.send(answer)
        if interruption.came:
            break
    with contextlib.suppress(Exception):
        at_end()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # It is where the shell has closed it.
            stream.flush()
    # Not the long way, on which threads that hang would be waited for.
    os._exit(0)


def _failed(error: BaseException, *, cleaned_up: bool = True) -> _Failed:
    """To be called where the error is being handled."""
    known = error if isinstance(error, PipelineError) else as_pipeline_error(error)
    return _Failed(known, _WorkerTraceback(traceback.format_exc()), cleaned_up)


def _work_on(
    work: Work[Any], config: ProcessConfig, pipe: Connection[Any, Any], position: Position
) -> _Done[Any] | _Failed:
    position.reset()
    position.on_failure = lambda error: pipe.send(_failed(error, cleaned_up=False))
    try:
        return _Done(work(config, _sender(pipe), position))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _failed(error)


class _Interruption:
    """The child's handler of SIGTERM: one KeyboardInterrupt, where it is wanted."""

    def __init__(self) -> None:
        self.came = False
        self._raises = False

    def __call__(self, *_: object) -> None:
        first, self.came = not self.came, True
        if first and self._raises:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def raised(self) -> Iterator[None]:
        """Where the work may be cut; elsewhere it is only remembered that the signal came."""
        self._raises = True
        try:
            if self.came:
                raise KeyboardInterrupt
            yield
        finally:
            self._raises = False


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _sender(messages: Connection[Any, Any]) -> ProgressCallback:
    """Sends what is worth showing: every stage, its end, and a few reports a second."""
    last_sent, last_stage = 0.0, ""

    def send(progress: Progress) -> None:
        nonlocal last_sent, last_stage
        now = time.monotonic()
        if (
            progress.stage != last_stage
            or progress.done == progress.total
            or now - last_sent >= _PROGRESS_SECONDS
        ):
            last_sent, last_stage = now, progress.stage
            messages.send(progress)

    return send
