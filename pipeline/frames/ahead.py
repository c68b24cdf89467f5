"""Frames decoded on a thread of their own, a few ahead of the one that takes them."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import SimpleQueue

from pipeline.core.errors import located
from pipeline.core.position import Step
from pipeline.frames.stats import RunStats
from pipeline.media.frame import Frame

_MOST_AHEAD = 4
MOST_IN_FLIGHT = _MOST_AHEAD + 2
"""Decoded frames: those that wait, and one on each side of them."""
_JOIN_SECONDS = 2.0


@contextmanager
def decoded_ahead(
    frames: Iterator[Frame], first_index: int, stats: RunStats
) -> Iterator[Iterator[Frame]]:
    """The same frames; at most 4 of them wait. Errors are raised where the frame would be.

    first_index: the place of the first frame in the clip, by which messages name frames. The thread
    ends with the context.
    """
    waiting: SimpleQueue[Frame | Exception | None] = SimpleQueue()
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

    def taken() -> Iterator[Frame]:
        while True:
            stats.consumer.place.enter(Step.DECODE)
            found = waiting.get()
            if isinstance(found, Exception):
                raise found
            if found is None:
                return
            yield found
            room.release()

    thread = threading.Thread(target=decode, name="decode", daemon=True)
    thread.start()
    try:
        yield taken()
    finally:
        stopped.set()
        room.release()
        thread.join(_JOIN_SECONDS)
