"""Whose turn it is to use what only one can use well at a time."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Turns:
    """One thread after the other has its turn."""

    def __init__(self) -> None:
        self._taken = threading.Lock()

    @contextmanager
    def taken(self) -> Iterator[Callable[[], None]]:
        """Wait for a turn, which lasts until the end of the block.

        Yields a function that ends it before; any thread may call it, also repeatedly.
        """
        self._taken.acquire()
        held = [self._taken]

        def end() -> None:
            with contextlib.suppress(IndexError):  # It was the turn of others since.
                held.pop().release()

        try:
            yield end
        finally:
            end()
