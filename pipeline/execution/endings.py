"""The end of a child process without a result -> an error for the user.

Imports nothing heavy, as `supervise`.
"""

from __future__ import annotations

import signal

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import Interrupted, PipelineError, WorkerDied
from pipeline.core.position import Position


def hung(how: str, position: Position, config: ProcessConfig) -> WorkerDied:
    """Of a worker in which nothing comes of the work any more.

    how: what it did instead, and for how long.
    """
    place = position.working
    what = how if place else f"{how} ({position})"
    error = WorkerDied(f"{what}; --stall-seconds allows more")
    if place is not None:
        error.step, error.frame_index = place.step.label, place.frame_index
    error.file = config.source_name
    return error


def death(exit_code: int | None, position: Position, config: ProcessConfig) -> WorkerDied:
    """Of a worker that is gone, or about to be (None), without an answer.

    exit_code: negative for the signal that killed it.
    """
    if exit_code is None or exit_code >= 0:
        how = f"ended without an answer (exit code {exit_code})"
    else:
        how = f"was killed by {_signal_name(-exit_code)}"
        if -exit_code == signal.SIGKILL:
            how += ", possibly out of memory"
    error = WorkerDied(f"the worker {how}; {position}")
    error.file = config.source_name
    return error


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # Most of the real-time signals have none.
        return f"signal {number}"


def interruption(answer: PipelineError, signal_number: int, kept: str) -> Interrupted:
    """Of a worker that was told to stop by that signal, and answered so.

    kept: what the run can resume from, in words; empty if there is nothing.
    """
    if isinstance(answer, Interrupted):
        error = answer
    elif isinstance(answer, WorkerDied):
        parts = ("interrupted", "the worker did not stop and was killed", kept)
        error = Interrupted("; ".join(part for part in parts if part))
    else:
        error = Interrupted(f"interrupted; {answer}")
    error.signal_number = signal_number
    return error
