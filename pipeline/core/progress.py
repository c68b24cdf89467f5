"""How long work tells its caller how far it is, without knowing who looks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Progress:
    """One report: `done` of `total` units (None where the total is unknown) of a stage.

    subject: of many things that are worked on, the one that this is about; empty if it is one.
    """

    stage: str
    done: int
    total: int | None
    unit: str = "frame"
    subject: str = ""


ProgressCallback = Callable[[Progress], None]


def no_progress(_: Progress) -> None:
    """For callers who do not look."""


class _CallbackFailed(Exception):
    """Stands for an exception of the caller's callback while work ends because of it."""


class CallersErrors:
    """A context in which a callback is called; what it raises leaves it as it was raised.

    Without being taken for an error of the step that it was called in. No generator, through
    which a StopIteration would not pass. Gives the callback to use inside.
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
