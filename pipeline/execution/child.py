"""The child process of a run: it answers each config with a result or an error, until it is ended.

Nothing heavy may be imported here: the parent forks from what it has imported.
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
from multiprocessing.connection import Connection
from typing import Any, Generic, TypeVar

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import Interrupted, PipelineError, as_pipeline_error
from pipeline.core.position import Position
from pipeline.core.progress import Progress, ProgressCallback

Result = TypeVar("Result")
Work = Callable[[ProcessConfig, ProgressCallback, Position], Result]

_PROGRESS_SECONDS = 0.1
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Done(Generic[Result]):
    result: Result


@dataclass(frozen=True, slots=True)
class Failed:
    """cleaned_up: whether the child has, before it said so; otherwise its parent will."""

    error: PipelineError
    cause: ChildTraceback | None
    cleaned_up: bool = True


class ChildTraceback(Exception):
    """Where an error came from in the child; as a cause it is shown in the parent's traceback."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def run_child(
    work: Work[Any], at_end: Callable[[], object], position: Position, pipe: Connection[Any, Any]
) -> None:
    """The child's whole life: every config that comes is answered by a Done or a Failed."""
    # Ctrl-C, and the end of a terminal, reach the whole process group; the parent alone decides
    # what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption = _Interruption()
    signal.signal(signal.SIGTERM, interruption)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING_SIGNALS)
    answer: Done[Any] | Failed
    while True:
        try:
            with interruption.raised():
                config = pipe.recv()
                if config is None:
                    break
                answer = _work_on(work, config, pipe, position)
        except KeyboardInterrupt:
            answer = Failed(Interrupted("interrupted"), None)
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


def _failed(error: BaseException, *, cleaned_up: bool = True) -> Failed:
    """To be called where the error is being handled."""
    known = error if isinstance(error, PipelineError) else as_pipeline_error(error)
    return Failed(known, ChildTraceback(traceback.format_exc()), cleaned_up)


def _work_on(
    work: Work[Any], config: ProcessConfig, pipe: Connection[Any, Any], position: Position
) -> Done[Any] | Failed:
    position.reset()
    position.on_failure = lambda error: pipe.send(_failed(error, cleaned_up=False))
    try:
        return Done(work(config, _sender(pipe), position))
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
