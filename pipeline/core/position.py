"""The current step and frame of each thread, readable while the work hangs or after it died."""

from __future__ import annotations

import contextlib
from array import array
from collections.abc import Callable, Iterator
from enum import IntEnum
from multiprocessing.context import BaseContext
from typing import Any

_CELLS = 3
_STEP, _FRAME, _MOVES = range(_CELLS)


Beat = Callable[[], object]
"""Called regularly by long work without frames, as a sign of progress."""


def no_beat() -> None:
    """For callers that are not supervised."""


class Step(IntEnum):
    """The step of a thread; the WAIT steps wait for the other thread or the model.

    WAIT_CLUSTER: waits for segments that are processed elsewhere. WAIT_TURN: waits for the frames
    of another clip.
    """

    PREPARE = 0
    DECODE = 1
    READ_DETECTIONS = 2
    PREPROCESS = 3
    INFER = 4
    CALLBACK = 5
    POSTPROCESS = 6
    TRACK = 7
    COVER = 8
    ANNOTATE = 9
    ENCODE = 10
    WRITE = 11
    JOIN = 12
    WAIT_IN_FLIGHT = 13
    WAIT_REQUEST = 14
    WAIT_INFERENCE = 15
    WAIT_CLUSTER = 16
    WAIT_TURN = 17
    DONE = 18

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", " ")

    @property
    def works_on_frame(self) -> bool:
        """Whether this thread works on a frame in this step."""
        return Step.DECODE <= self <= Step.WRITE

    @property
    def waits(self) -> bool:
        """Whether a thread waits for a frame."""
        return self in (Step.WAIT_IN_FLIGHT, Step.WAIT_REQUEST, Step.WAIT_INFERENCE)


class Place:
    """The step and frame of one thread; written by that thread, read by others."""

    __slots__ = ("_cells",)

    def __init__(self, cells: memoryview[int]) -> None:
        self._cells = cells

    def enter(self, step: int) -> None:
        cells = self._cells
        cells[_STEP] = step
        cells[_MOVES] += 1

    @property
    def step(self) -> Step:
        return Step(self._cells[_STEP])

    @property
    def frame_index(self) -> int:
        return self._cells[_FRAME]

    @frame_index.setter
    def frame_index(self, index: int) -> None:
        self._cells[_FRAME] = index

    def __str__(self) -> str:
        step = self.step
        about_frame = step.works_on_frame or step.waits
        return f"{step.label} of frame {self.frame_index}" if about_frame else step.label


class Position:
    """The places of the two threads, and a counter of their steps.

    In private memory by default; `shared` returns one in memory shared with another process.
    on_failure: called with an error before the cleanup, which may hang.
    """

    def __init__(self, memory: Any = None) -> None:
        self.on_failure: Callable[[Exception], object] = lambda _: None
        # Eight bytes each: read and written atomically, without a lock.
        self._memory = array("q", bytes(8 * 2 * _CELLS)) if memory is None else memory
        cells = memoryview(self._memory).cast("B").cast("q")
        self.decoding = Place(cells[:_CELLS])
        self.encoding = Place(cells[_CELLS:])

    @classmethod
    def shared(cls, context: BaseContext) -> Position:
        """A shared one, to pass to a process of that multiprocessing context."""
        return cls(context.RawArray("q", 2 * _CELLS))

    @contextlib.contextmanager
    def failures_told(self) -> Iterator[None]:
        """Call on_failure with the error that this block raises."""
        try:
            yield
        except Exception as error:
            self.on_failure(error)
            raise

    def __reduce__(self) -> tuple[type[Position], tuple[Any]]:
        return Position, (self._memory,)

    def reset(self) -> None:
        """Reset the places of both threads."""
        for place in (self.decoding, self.encoding):
            place.frame_index = 0
            place.enter(Step.PREPARE)

    @property
    def heartbeat(self) -> int:
        """A number that grows with each step that either thread enters."""
        return self._memory[_MOVES] + self._memory[_CELLS + _MOVES]

    @property
    def working(self) -> Place | None:
        """The place of a thread that works on a frame; None if both wait or have no frame."""
        for place in (self.encoding, self.decoding):
            if place.step.works_on_frame:
                return place
        return None

    @property
    def waits_for_model(self) -> bool:
        """Whether no thread works on a frame, and at least one waits for the model."""
        waits = self.encoding.step.waits or self.decoding.step.waits
        return waits and self.working is None

    def __str__(self) -> str:
        started = [
            f"{thread} thread at {place}"
            for thread, place in (("decoding", self.decoding), ("encoding", self.encoding))
            if place.step not in (Step.PREPARE, Step.DONE)
        ]
        return ", ".join(started) or "while preparing"
