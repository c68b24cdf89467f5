"""What was found, of many things at once, and where it is heading."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.run.redaction.rectangles import Boxes

MOST_SPEEDS = 3
"""A thing whose way is not sure has so many speeds, each of which it can have."""

_HALF_SECONDS = 0.5
"""After this time, the largest sides of a thing count half."""

NONE = -1

Seconds = NDArray[np.float64]


@dataclass(slots=True)
class Things:
    """N things that were found.

    class_id: (N,). box, seconds: (N, 4) and (N,), where and when last. speeds: (N, MOST_SPEEDS, 4)
    of the four edges in px/s, those that it can have; NaN where there are fewer. is_moving: (N,),
    whether the first one is measured. missed_seconds: (N,), of the first inferred frame since then
    without it; inf if there is none. steps: (N,), inferred frames since then. Of what is to be
    covered once the speed is known: since (N,), from when on; inf if there is nothing. until_box,
    until: (N, 4) and (N,), the find before which it is. is_gap, before_box: (N,) and (N, 4),
    whether and where it was found at `since`. largest_wh: (N, 2), its largest sides so far, less
    as time goes on: others can hide parts of it for a while. number: (N,), of each its own.
    origins: (N, MOST_SPEEDS), the numbers of the things that it was, if it has that speed; NONE
    without one.
    """

    class_id: NDArray[np.int64]
    box: Boxes
    seconds: Seconds
    speeds: Boxes
    is_moving: NDArray[np.bool_]
    missed_seconds: Seconds
    steps: NDArray[np.int64]
    since: Seconds
    until_box: Boxes
    until: Seconds
    is_gap: NDArray[np.bool_]
    before_box: Boxes
    largest_wh: Boxes
    number: NDArray[np.int64]
    origins: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.class_id)

    @classmethod
    def begun(
        cls,
        box: Boxes,
        class_id: NDArray[np.int64],
        span_seconds: tuple[float, float],
        first_number: int = 0,
    ) -> Things:
        """Things found for the first time at the end of a span, to be covered from its begin on."""
        since, seconds = span_seconds
        count = len(box)
        return cls(
            class_id=class_id,
            box=box,
            seconds=np.full(count, seconds),
            speeds=np.full((count, MOST_SPEEDS, 4), np.nan),
            is_moving=np.zeros(count, bool),
            missed_seconds=np.full(count, np.inf),
            steps=np.ones(count, np.int64),
            since=np.full(count, since),
            until_box=box.copy(),
            until=np.full(count, seconds),
            is_gap=np.zeros(count, bool),
            before_box=box.copy(),
            largest_wh=box[:, 2:] - box[:, :2],
            number=np.arange(first_number, first_number + count),
            origins=np.full((count, MOST_SPEEDS), NONE),
        )

    def where(self, kept: NDArray[np.bool_] | NDArray[np.intp] | slice) -> Things:
        """Those for which a mask is true, or in these places."""
        return Things(*(getattr(self, field.name)[kept] for field in dataclasses.fields(self)))

    def followed_by(self, others: Things) -> Things:
        """These, and behind them the others."""
        names = [field.name for field in dataclasses.fields(self)]
        return Things(*(np.concatenate((getattr(self, n), getattr(others, n))) for n in names))

    def expected(self, seconds: float) -> Boxes:
        """Where they can be, (N, 1 + MOST_SPEEDS, 4): where they were, and by each speed."""
        way = np.nan_to_num(self.speeds) * (seconds - self.seconds)[:, None, None]
        return np.concatenate((self.box[:, None], self.box[:, None] + way), axis=1)

    def found(self, box: Boxes, seconds: float) -> None:
        """All of them are found again."""
        speed = (box - self.box) / np.maximum(seconds - self.seconds, 1e-6)[:, None]
        before = np.where(self.is_moving[:, None], self.speeds[:, 0], speed)
        self.speeds = np.full_like(self.speeds, np.nan)
        self.speeds[:, 0] = (before + speed) / 2
        self.origins = np.full_like(self.origins, NONE)
        faded = 0.5 ** ((seconds - self.seconds) / _HALF_SECONDS)[:, None]
        self.largest_wh = np.maximum(self.largest_wh * faded, box[:, 2:] - box[:, :2])
        self.box, self.seconds = box, np.full(len(self), seconds)
        self.is_moving = np.ones(len(self), bool)
        self.missed_seconds, self.steps = np.full(len(self), np.inf), np.ones_like(self.steps)

    def held_until(self, hold_seconds: float) -> Seconds:
        """Until when each is covered after its last find, (N,)."""
        missed = self.missed_seconds
        return np.where(np.isinf(missed), np.inf, np.maximum(self.seconds + hold_seconds, missed))

    def add_speed(self, row: int, speed: Boxes, origin: int = NONE) -> None:
        """A speed that a thing can have, if none is measured and there is room."""
        free = np.nonzero(np.isnan(self.speeds[row, :, 0]))[0]
        if not self.is_moving[row] and len(free):
            self.speeds[row, free[0]], self.origins[row, free[0]] = speed, origin

    def continue_from(self, rows: NDArray[np.intp], others: Things) -> None:
        """The things in these rows turn out to be the others: those began, and these went on."""
        for name in ("since", "until_box", "until", "is_gap", "before_box"):
            getattr(self, name)[rows] = getattr(others, name)
