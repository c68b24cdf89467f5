"""The detections of the frames that were inferred last."""

from __future__ import annotations

import threading
from typing import TypeVar

from pipeline.core.boxes import Detections

Value = TypeVar("Value")


class LatestDetections:
    """The detections of the latest frames, so many of them; one thread puts, others read."""

    def __init__(self, number: int) -> None:
        self._number = number
        self._found: dict[int, Detections] = {}
        self._repeated: dict[int, int] = {}
        self._changed = threading.Condition()

    def __getitem__(self, index: int) -> Detections:
        return self._found[index]

    def get(self, index: int) -> Detections | None:
        """None if they have not been put yet."""
        return self._found.get(self._repeated.get(index, index))

    def put(self, index: int, detections: Detections) -> None:
        with self._changed:
            _put(self._found, index, detections, self._number)
            self._changed.notify_all()

    def repeat(self, index: int, of: int) -> None:
        """Let a frame have the detections of another one. For the thread that reads."""
        _put(self._repeated, index, of, self._number)

    def wait(self, seconds: float) -> None:
        """Wait until there is something new, so long at the most."""
        with self._changed:
            self._changed.wait(seconds)


def _put(values: dict[int, Value], index: int, value: Value, most: int) -> None:
    values[index] = value
    while len(values) > most:
        del values[next(iter(values))]
