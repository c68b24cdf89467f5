"""Notes: messages of a run that continues, each at most once.

They go through the standard logger "pipeline" to a collector, or to stderr if there is none.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGER = logging.getLogger("pipeline")


def note(text: str) -> None:
    """Show one line to the user."""
    _LOGGER.warning("%s", text)


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """A list that receives the notes of this block, without repetitions.

    It also receives notes of other threads, unless such a thread collects its own.
    """
    notes: list[str] = []
    handler = _Collector(notes)
    _LOGGER.addHandler(handler)
    try:
        yield notes
    finally:
        _LOGGER.removeHandler(handler)


class _Collector(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._notes = notes
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        collectors = [other for other in _LOGGER.handlers if isinstance(other, _Collector)]
        if record.thread in {other._thread for other in collectors} - {self._thread}:
            return
        text = record.getMessage()
        if text not in self._notes:
            self._notes.append(text)
