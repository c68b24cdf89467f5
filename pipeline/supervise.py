"""Work in a process of its own, and a light one that watches it, says how it died, and cleans up.

FFmpeg, the model or the kernel may end a process at any moment; whoever started the work is still
there to say what happened. Nothing heavy may be imported here: that keeps the fork cheap and safe.
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

from pipeline.config import ProcessConfig
from pipeline.errors import Interrupted, PipelineError, WorkerDied, as_pipeline_error
from pipeline.journal import tidy
from pipeline.position import Position
from pipeline.progress import Progress, ProgressCallback

Result = TypeVar("Result")
Work = Callable[[ProcessConfig, ProgressCallback, Position], Result]

IDLE_SECONDS = 600.0
"""How long nothing may move where no frame is worked on: while preparing, joining, or where both
threads wait for the model, which the worker itself watches."""

_POLL_SECONDS = 0.25
_STOP_SECONDS = 3.5
_EXIT_SECONDS = 2.0
_CLEAN_UP_SECONDS = 5.0
_PROGRESS_SECONDS = 0.1
_STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True, slots=True)
class _Done(Generic[Result]):
    result: Result


@dataclass(frozen=True, slots=True)
class _Failed:
    """cleaned_up: whether the worker has, before it said so; otherwise its parent will."""

    error: PipelineError
    cause: _WorkerTraceback | None
    cleaned_up: bool = True


class _WorkerTraceback(Exception):
    """Where an error came from in the worker; as a cause it is shown in the parent's traceback."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def supervise(work: Work[Result], config: ProcessConfig, on_progress: ProgressCallback) -> Result:
    """Do the work in a child process and return its result; for the main thread only.

    work: a function of a module, called as work(config, on_progress, position) in the child.
    Raises the PipelineError that the work raised; WorkerDied if the child died, or hung and was
    killed; Interrupted if SIGINT or SIGTERM came. The first of them asks the work to stop, by a
    KeyboardInterrupt; a second one, or too long a wait, kills the child. In all these cases what
    the child left behind is removed.
    """
    context = _context()
    position = Position.shared(context)
    messages, worker_end = context.Pipe(duplex=False)
    process = context.Process(
        target=_run_worker, args=(work, config, position, worker_end), name="worker"
    )
    creates = not config.output_dir.exists()
    stop = _Stop(process)
    answer: _Done[Result] | _Failed | None = None
    kept = ""
    with messages, contextlib.ExitStack() as handlers:
        # Held back, so that neither process is without its own handlers for a moment.
        with _stopping_signals_blocked():
            process.start()
            for number in _STOPPING_SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    handlers.callback(signal.signal, number, signal.signal(number, stop))
        worker_end.close()
        try:
            answer = _watch(process, messages, position, config, on_progress, stop)
        except WorkerDied as error:
            answer = _Failed(error, None, cleaned_up=False)
        finally:
            if answer is None or (isinstance(answer, _Failed) and not answer.cleaned_up):
                process.kill()
            _end(process)
            if not isinstance(answer, _Done):
                kept = tidy(config.output_dir, created=creates)
    process.close()
    if stop.signal_number is not None:
        raise _interrupted(answer, stop.signal_number, kept)
    if isinstance(answer, _Failed):
        if kept and not answer.cleaned_up:
            answer.error.args = (f"{answer.error.args[0]}; {kept}",)
        raise answer.error from answer.cause
    return answer.result


class _Stop:
    """The handler of the signals that stop a run: the first asks the worker, the second kills."""

    def __init__(self, process: BaseProcess) -> None:
        self.signal_number: int | None = None
        self._process = process

    def __call__(self, number: int, _: FrameType | None) -> None:
        if self.signal_number is None:
            self.signal_number = number
            self._process.terminate()
        else:
            self._process.kill()


def _watch(
    process: BaseProcess,
    messages: Connection,
    position: Position,
    config: ProcessConfig,
    on_progress: ProgressCallback,
    stop: _Stop,
) -> _Done[Any] | _Failed:
    """Pass progress on until the worker answers, or has failed and does not finish cleaning up.

    Raises WorkerDied.
    """
    # Polls are counted, not the time: a shell may stop both processes and continue them later.
    still_polls = 0
    stop_at: float | None = None
    failed: _Failed | None = None
    failed_at = 0.0
    heartbeat = position.heartbeat
    while True:
        ready = wait([messages, process.sentinel], _POLL_SECONDS)
        message = None
        if messages in ready:
            with contextlib.suppress(EOFError, OSError):
                message = messages.recv()
        if ready and message is None:
            if failed is not None:
                return failed
            raise _death(process, position, config)
        if isinstance(message, _Done) or (isinstance(message, _Failed) and message.cleaned_up):
            return message
        if isinstance(message, _Failed):
            if failed is None:
                failed, failed_at = message, time.monotonic()
                if failed.error.step is not None:
                    failed.error.file = config.source_name
        elif message is not None:
            on_progress(message)
            still_polls = 0
        elif heartbeat != position.heartbeat:
            heartbeat, still_polls = position.heartbeat, 0
        else:
            still_polls += 1
        if stop.signal_number is not None:
            stop_at = stop_at or time.monotonic() + _STOP_SECONDS
            if time.monotonic() >= stop_at:
                raise WorkerDied("the worker did not stop in time and was killed")
        elif failed is not None:
            if time.monotonic() - failed_at >= _CLEAN_UP_SECONDS:
                return failed
        elif still_polls:
            require_not_stalled(still_polls * _POLL_SECONDS, position, config)


def require_not_stalled(still_seconds: float, position: Position, config: ProcessConfig) -> None:
    """Raise WorkerDied if nothing has moved for longer than the step at hand may take."""
    place = position.working
    limit_seconds = config.stall_seconds if place else max(IDLE_SECONDS, config.stall_seconds)
    if still_seconds < limit_seconds:
        return
    if place is None:
        error = WorkerDied(f"nothing moved for {limit_seconds:g} s ({position})")
    else:
        error = WorkerDied(
            f"it did not come back within {limit_seconds:g} s; --stall-seconds allows more"
        )
        error.step, error.frame_index = place.step.label, place.frame_index
    error.file = config.source_name
    raise error


def _death(process: BaseProcess, position: Position, config: ProcessConfig) -> WorkerDied:
    process.join(_EXIT_SECONDS)
    code = process.exitcode
    if code is None or code >= 0:
        how = f"ended without an answer (exit code {code})"
    else:
        how = f"was killed by {_signal_name(-code)}"
        if -code == signal.SIGKILL:
            how += ", perhaps because memory ran out"
    error = WorkerDied(f"the worker {how}; {position}")
    error.file = config.source_name
    return error


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # Most of the real-time signals have none.
        return f"signal {number}"


def _interrupted(answer: _Done[Any] | _Failed, signal_number: int, kept: str) -> Interrupted:
    if isinstance(answer, _Done):
        error = Interrupted("interrupted when the output was complete")
    elif isinstance(answer.error, Interrupted):
        error = answer.error
    elif isinstance(answer.error, WorkerDied):
        parts = ("interrupted", "the worker did not stop and was killed", kept)
        error = Interrupted("; ".join(part for part in parts if part))
    else:
        error = Interrupted(f"interrupted; {answer.error}")
    error.signal_number = signal_number
    return error


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
    work: Work[Any], config: ProcessConfig, position: Position, messages: Connection
) -> None:
    """The child's whole life; its last message is a _Done or a _Failed."""
    # Ctrl-C reaches the whole process group; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _interrupt)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    answer: _Done[Any] | _Failed
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _STOPPING_SIGNALS)
        position.on_failure = lambda error: messages.send(_failed(error, cleaned_up=False))
        answer = _Done(work(config, _sender(messages), position))
    except KeyboardInterrupt:
        answer = _Failed(Interrupted("interrupted"), None)
    except BaseException as error:
        answer = _failed(error)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    messages.send(answer)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # It is where the shell has closed it.
            stream.flush()
    # Not the long way, on which threads that hang would be waited for.
    os._exit(0)


def _failed(error: BaseException, *, cleaned_up: bool = True) -> _Failed:
    """To be called where the error is being handled."""
    known = error if isinstance(error, PipelineError) else as_pipeline_error(error)
    return _Failed(known, _WorkerTraceback(traceback.format_exc()), cleaned_up)


def _interrupt(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _sender(messages: Connection) -> ProgressCallback:
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
