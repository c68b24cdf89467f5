"""Frames decoded on a thread of their own, a few ahead of the one that takes them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeAlias

from pipeline.core.errors import located
from pipeline.core.position import Place, Step
from pipeline.frames.stats import RunStats
from pipeline.media.frame import Frame

_MOST_AHEAD = 4
MOST_IN_FLIGHT = _MOST_AHEAD + 2
"""Decoded frames: those that wait, and one on each side of them."""
_JOIN_SECONDS = 2.0


_Queue: TypeAlias = "SimpleQueue[Frame | Exception | None]"


@contextmanager
def decoded_ahead(
    frames: Iterator[Frame], first_index: int, stats: RunStats
) -> Iterator[Iterator[Frame]]:
    """The same frames; at most 4 of them wait. Errors are raised where the frame would be.

    first_index: the place of the first frame in the clip, by which messages name frames. The thread
    ends with the context.
    """
    waiting: _Queue = SimpleQueue()
    room, stopped = threading.Semaphore(_MOST_AHEAD), threading.Event()
    clocks = stats.producer
    place = clocks.place

    def decode() -> None:
        for index in itertools.count(first_index):
            place.frame_index = index
            try:
                with clocks.decode:
                    frame = next(frames, None)
            except Exception as error:
                waiting.put(located(error, Step.DECODE.label, index))
                break
            waiting.put(frame)
            place.enter(Step.WAIT_IN_FLIGHT)
            room.acquire()
            if frame is None or stopped.is_set():
                break
        place.enter(Step.DONE)

    thread = threading.Thread(target=decode, name="decode", daemon=True)
    thread.start()
    try:
        yield _taken(waiting, room, stats.consumer.place)
    finally:
        stopped.set()
        room.release()
        thread.join(_JOIN_SECONDS)


def _taken(waiting: _Queue, room: threading.Semaphore, place: Place) -> Iterator[Frame]:
    """The frames that wait, up to the last one; each makes room when the next is asked for."""
    while True:
        place.enter(Step.DECODE)
        found = waiting.get()
        if isinstance(found, Exception):
            raise found
        if found is None:
            return
        yield found
        room.release()
