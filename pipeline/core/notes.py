"""What a run has to say though it goes on: each thing once, to whoever collects it.

Through the standard logger "pipeline"; where nobody collects, it writes a line to stderr.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOGGER = logging.getLogger("pipeline")


def note(text: str) -> None:
    """Say one line to the user."""
    _LOGGER.warning("%s", text)


@contextmanager
def collected_notes() -> Iterator[list[str]]:
    """The list that the notes of this block land in, none of them twice.

    Also those of other threads, but for what another thread collects itself.
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
