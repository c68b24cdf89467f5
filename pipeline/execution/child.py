"""The child process of a run: it answers each config with a result or an error, until it is ended.

Nothing heavy may be imported here: the parent forks from what it has imported.
"""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
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
    work: Work[Any],
    at_end: Callable[[], object],
    positions: Sequence[Position],
    pipe: Connection[Any, Any],
) -> None:
    """The child's whole life: every config that comes is answered by a Done or a Failed.

    positions: one for each run at a time; what comes and goes bears the number of one. A single one
    is that of the main thread, where a signal interrupts the work; several are those of threads,
    which end with the process.
    """
    # Ctrl-C, and the end of a terminal, reach the whole process group; the parent alone decides
    # what they mean.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    interruption = _Interruption()
    signal.signal(signal.SIGTERM, interruption)
    threading.Thread(target=end_with_parent, name="parent", daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING_SIGNALS)
    sender = _Sender(pipe)
    if len(positions) == 1:
        _answer_in_turn(work, positions[0], pipe, sender, interruption)
    else:
        _answer_at_once(work, positions, pipe, sender, interruption)
    with contextlib.suppress(Exception):
        at_end()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:  # It is where the shell has closed it.
            stream.flush()
    # Not the long way, on which threads that hang would be waited for.
    os._exit(0)


def _answer_in_turn(
    work: Work[Any],
    position: Position,
    pipe: Connection[Any, Any],
    sender: _Sender,
    interruption: _Interruption,
) -> None:
    """Answer each config on this thread, until there are no more or a signal comes."""
    answer: Done[Any] | Failed
    send = functools.partial(sender.send, 0)
    while True:
        try:
            with interruption.raised():
                asked = pipe.recv()
                if asked is None:
                    return
                answer = _work_on(work, asked[1], send, position)
        except KeyboardInterrupt:
            answer = Failed(Interrupted("interrupted"), None)
        except EOFError:  # The parent has ended.
            return
        send(answer)
        if interruption.came:
            return


def _answer_at_once(
    work: Work[Any],
    positions: Sequence[Position],
    pipe: Connection[Any, Any],
    sender: _Sender,
    interruption: _Interruption,
) -> None:
    """Answer each config on a thread of its own, until there are no more or a signal comes."""

    def answer(number: int, config: ProcessConfig) -> None:
        send = functools.partial(sender.send, number)
        send(_work_on(work, config, send, positions[number]))

    with contextlib.suppress(KeyboardInterrupt), interruption.raised():
        while (asked := pipe.recv()) is not None:
            threading.Thread(target=answer, args=asked, name="clip", daemon=True).start()


def _failed(error: BaseException, *, cleaned_up: bool = True) -> Failed:
    """To be called where the error is being handled."""
    known = error if isinstance(error, PipelineError) else as_pipeline_error(error)
    return Failed(known, ChildTraceback(traceback.format_exc()), cleaned_up)


def _work_on(
    work: Work[Any], config: ProcessConfig, send: Callable[[Any], None], position: Position
) -> Done[Any] | Failed:
    position.reset()
    position.on_failure = lambda error: send(_failed(error, cleaned_up=False))
    try:
        return Done(work(config, _sparing(send), position))
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return _failed(error)


class _Sender:
    """Sends messages to the parent, each with the number of its run; any thread may."""

    def __init__(self, pipe: Connection[Any, Any]) -> None:
        self._pipe = pipe
        self._lock = threading.Lock()

    def send(self, number: int, message: Any) -> None:
        with contextlib.suppress(OSError), self._lock:  # Nobody listens any more.
            self._pipe.send((number, message))


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


def end_with_parent() -> None:
    """For a thread of a process of `multiprocessing`: end the process when its parent is gone."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _sparing(send_message: Callable[[Any], None]) -> ProgressCallback:
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
            send_message(progress)

    return send
