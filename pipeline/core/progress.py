"""Progress: values that long work passes to a callback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """`done` of `total` units of a stage; total is None if it is unknown.

    subject: the current one of several items; empty if there is only one.
    clip: the one of several clips that this comes from; empty if there is only one.
    """

    stage: str
    done: int
    total: int | None
    unit: str = "frame"
    subject: str = ""
    clip: str = ""


ProgressCallback = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """A callback that does nothing."""


class _CallbackFailed(Exception):
    """Replaces an exception of the caller's callback while the work ends because of it."""


class CallersErrors:
    """A context that calls a callback and re-raises its exceptions unchanged.

    They are not treated as errors of the step that called it. Not a generator, because a
    StopIteration could not pass through one. Yields the callback to use inside.
    """

    def __init__(self, on_progress: ProgressCallback) -> None:
        self._on_progress = on_progress
        self._raised: Exception | None = None

    def __enter__(self) -> ProgressCallback:
        return self._call

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._raised is not None and (kind is None or issubclass(kind, Exception)):
            raise self._raised

    def _call(self, progress: Progress) -> None:
        try:
            self._on_progress(progress)
        except Exception as error:
            self._raised = error
            raise _CallbackFailed from error
