"""What a run has to say though it goes on: each thing once, to whoever collects it.

Through the standard logger "pipeline"; where nobody collects, it writes a line to stderr.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGER = logging.getLogger("pipeline")


def note(text: str) -> None:
    """Say one line to the user."""
    _LOGGER.warning("%s", text)


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """The list that the notes of this block land in, none of them twice."""
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

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text not in self._notes:
            self._notes.append(text)
