"""The interface between the frame loop and the engines that run the model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pipeline.core.closing import Closing
from pipeline.core.errors import InferenceError

Job = TypeVar("Job")
_Job = TypeVar("_Job", contravariant=True)
Heads = Sequence[NDArray[np.float32]]


def inference_error(message: str, job: object) -> InferenceError:
    """An error of the model on a job, with the frame if the job has the index of one."""
    error = InferenceError(message)
    index = getattr(job, "index", None)
    error.frame_index = index if isinstance(index, int) else None
    return error


class Pool(Closing, Protocol[_Job]):
    """Infers frames: one thread fills inputs and submits, other threads call back.

    `on_done(job, heads, latency_seconds)` is called as results come, in any order and on any
    thread; heads are views that are valid only during the call. An exception of it goes to
    `on_error`. A context manager, which closes it.
    """

    num_requests: int
    batch: int

    @property
    def num_running(self) -> int: ...

    def cpu_seconds(self) -> float:
        """CPU time so far of the threads that infer, in this pool and in others."""
        ...

    def next_input(self) -> NDArray[np.uint8]:
        """Wait for a place; its uint8 (height, width, 3) buffer, as it was last written.

        What the one submitted last holds is not touched before the next is submitted.
        Raises InferenceError if a request has failed.
        """
        ...

    def submit(self, job: _Job) -> None:
        """Infer what `next_input` gave, now or as soon as its batch is full."""
        ...

    def flush(self) -> None:
        """Infer what has been submitted even if its batch is not full."""
        ...

    def drain(self) -> None:
        """Infer what is left and wait for all of it. Raises InferenceError if a request failed."""
        ...

    def close(self) -> None:
        """Wait until no request runs, for a few seconds at most; no callback is called afterwards.

        Submitted jobs that have not started may be dropped: call `drain` first. May be called at
        any time, on any thread, and repeatedly.
        """
        ...


class Engine(Closing, Protocol):
    """A compiled or loaded model. A context manager, which closes it."""

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(batch, height, width, 3)"""
        ...

    def facts(self) -> dict[str, Any]:
        """How the model runs, as plain values for the report."""
        ...

    def open_pool(
        self,
        on_done: Callable[[Job, Heads, float], None],
        on_error: Callable[[BaseException], None],
    ) -> Pool[Job]:
        """Raises InferenceError if the engine is closed."""
        ...

    def close(self) -> None:
        """Free the model, now or when the last of its pools is closed."""
        ...
