"""Starts and ends the processes that run `child.run_child`.

Imports nothing heavy, as `supervise`.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Any

from pipeline.core.cores import on_cores
from pipeline.core.position import Position
from pipeline.execution.child import STOPPING_SIGNALS, run_child

_EXIT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Child:
    """pipe: arguments go there, progress and answers come back, each with the number of its run.

    positions: of each run at a time, by its number.
    """

    process: BaseProcess
    pipe: Connection[Any, Any]
    positions: Sequence[Position]

    def exit_code(self) -> int | None:
        self.process.join(_EXIT_SECONDS)
        return self.process.exitcode

    def end(self, *, kill: bool) -> None:
        """End it in order, or at once; returns when it is gone."""
        if kill:
            self.process.kill()
        with self.pipe, contextlib.suppress(OSError):  # It may be gone already.
            self.pipe.send(None)
        self.process.join(_EXIT_SECONDS)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()


def start_child(
    work: Callable[..., Any],
    at_end: Callable[[], object],
    context: ForkContext | SpawnContext,
    num_at_once: int = 1,
) -> Child:
    """Start a process that answers each argument with `work(argument, on_progress, position)`.

    at_end: called there before it ends in order. num_at_once: of runs; see `run_child`.
    """
    positions = [Position.shared(context) for _ in range(num_at_once)]
    pipe, its_end = context.Pipe()
    process = context.Process(
        target=run_child, args=(work, at_end, positions, its_end), name="worker"
    )
    # Held back, so that the process is not without its own handlers for a moment.
    with stopping_signals_blocked():
        process.start()
    its_end.close()
    return Child(process, pipe, positions)


def start_on_cores(work: Callable[..., Any], cores: Sequence[int]) -> Child:
    """Start a process as `start_child`, whose libraries find no cores but these.

    In a new interpreter: a fork would have the threads and cores of OpenVINO here.
    """
    context = multiprocessing.get_context("spawn")
    with on_cores(cores), _without_main_module():
        return start_child(work, _do_nothing, context)


def _do_nothing() -> None:
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


@contextlib.contextmanager
def stopping_signals_blocked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
