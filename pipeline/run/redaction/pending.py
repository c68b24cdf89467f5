"""What is covered in the frames that are not final yet."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.run.redaction.covered import CoveredFrame
from pipeline.run.redaction.found import CoverRules, FoundBoxes
from pipeline.run.redaction.links import MOST_STEPS
from pipeline.run.redaction.rectangles import (
    Boxes,
    hull,
    longer_sides,
    on_pixels,
    reached,
    sizes,
)
from pipeline.run.redaction.things import MOST_SPEEDS, Seconds, Things
from pipeline.run.redaction.ways import (
    SHORT_SECONDS,
    SPEED_MARGIN,
    between,
    moved,
    short_ways,
    with_sides,
)

_ASIDE_SECONDS = 0.15
"""So long a thing can have gone another way than straight to where it was found next."""

_GROWTH_PER_SECOND, _MOST_GROWTH = 0.5, 1.0
"""Of its longer side: how much less is known of where a thing is that was found so long ago."""

_LEAST_MARGIN_PX, _HIDDEN_SHARE = 2.0, 0.1
"""Of its longer side, a thing can have been hidden by others in both of two finds."""

_MOST_AT_ONCE = 1 << 16
"""Places of things in frames."""

Places = NDArray[np.intp]


class PendingFrames:
    """Frames, and what is covered in them so far."""

    def __init__(self, rules: CoverRules) -> None:
        self._rules = rules
        self.seconds: list[float] = []
        self._steps: list[int] = []
        self._covers: list[CoveredFrame] = []
        self._num_inferred = 0

    def add(self, frame: FoundBoxes) -> None:
        """Take the next frame, and cover what was found in it."""
        if self.seconds and frame.seconds < self.seconds[-1]:
            raise ValueError("frames are not in order of their times")
        self._num_inferred += frame.inferred
        self.seconds.append(frame.seconds)
        self._steps.append(self._num_inferred)
        boxes = frame.xyxy.astype(np.float64)
        self._covers.append(CoveredFrame(self._rules.size_wh))
        here = np.full(len(boxes), len(self._covers) - 1)
        self._cover(here, boxes, np.zeros(len(boxes)), boxes)

    def final(self, before: float) -> Iterator[NDArray[np.int64]]:
        """What is covered in the frames before a time, which are taken out."""
        count = bisect_left(self.seconds, before)
        for covered in self._covers[:count]:
            yield covered.final()
        del self.seconds[:count], self._covers[:count], self._steps[:count]

    def cover_gaps(self, things: Things, box: Boxes, seconds: float) -> None:
        """Cover where things can have been between their last find and this one."""
        for some in self._few_of(things):
            self._cover_gaps(things.where(some), box[some], seconds)

    def _cover_gaps(self, things: Things, box: Boxes, seconds: float) -> None:
        rows, places, at = self._inside(things.seconds, np.full(len(things), seconds))
        if not len(rows):
            return
        a, b = things.where(rows), box[rows]
        apart, whole = at - a.seconds, seconds - a.seconds
        nearer = np.minimum(apart, whole - apart)
        is_short = short_ways(a.box, b, whole)
        own = np.where((sizes(a.box) > sizes(b))[:, None], a.box, b)
        hidden = _HIDDEN_SHARE * longer_sides(own)
        straight = reached(between(a.box, b, apart / whole), hidden[:, None])
        speed = np.where(a.is_moving[:, None], a.speeds[:, 0], (b - a.box) / whole[:, None])
        aside = np.abs(speed).reshape(-1, 2, 2).max(axis=1) * (1 + SPEED_MARGIN)
        aside *= np.minimum(nearer, _ASIDE_SECONDS)[:, None]
        wide = reached(hull(a.box, b), aside)
        self._cover(places, np.where(is_short[:, None], straight, wide), nearer, own)
        for number in range(MOST_SPEEDS):
            known = is_short & ~np.isnan(a.speeds[:, number, 0])
            ahead = hull(straight, moved(a.box, a.speeds[:, number], apart))
            self._cover(places[known], ahead[known], nearer[known], own[known])

    def cover_before(self, things: Things, speeds: Boxes) -> None:
        """Cover where things were before the find of which the speed (N, MOST_SPEEDS, 4) is known.

        Those that were found before it, on the way from there.
        """
        is_gap = things.is_gap
        self.hold(things.where(~is_gap), speeds[~is_gap], backwards=True)
        things, speeds = things.where(is_gap), speeds[is_gap, 0]
        for some in self._few_of(things):
            self._cover_way(things.where(some), speeds[some])

    def _cover_way(self, things: Things, speeds: Boxes) -> None:
        """Cover things on the way to their last find from the one before, at speeds (N, 4)."""
        rows, places, at = self._inside(things.since, things.until)
        if not len(rows):
            return
        a = things.where(rows)
        left, apart = a.until - at, at - a.since
        back = moved(a.until_box, -speeds[rows], left)
        way = hull(between(a.before_box, a.until_box, apart / (left + apart)), back)
        self._cover(places, way, np.minimum(left, apart), a.until_box)

    def hold(self, things: Things, speeds: Boxes, *, backwards: bool = False) -> None:
        """Cover things before their first find or after their last one, and where they went."""
        for some in self._few_of(things):
            self._hold(things.where(some), speeds[some], backwards=backwards)

    def _hold(self, things: Things, speeds: Boxes, *, backwards: bool) -> None:
        box, at, until = things.box, things.seconds, things.held_until(self._rules.hold_seconds)
        if backwards:
            box, at, until = things.until_box, things.until, things.until
        rows, places, seconds = self._inside(things.since if backwards else at, until, ends=True)
        if not len(rows):
            return
        own, speeds = box[rows], (-speeds if backwards else speeds)[rows]
        box = with_sides(own, things.largest_wh[rows])
        apart = np.abs(seconds - at[rows])
        is_short = apart <= SHORT_SECONDS
        self._cover(places, box, apart, own)
        for number in range(MOST_SPEEDS):
            known = ~np.isnan(speeds[:, number, 0])
            ahead = moved(box, speeds[:, number], apart * (1 + SPEED_MARGIN * is_short))
            way = np.where(is_short[:, None], hull(box, ahead), ahead)
            self._cover(places[known], way[known], apart[known], own[known])
        steps = self._steps_between(places, at[rows])
        reach = steps * self._rules.fastest_sides * longer_sides(own)
        alone = ~things.is_moving[rows] & (steps <= MOST_STEPS) & (reach > 0) & (apart > 0)
        self._cover(places[alone], reached(box, reach[:, None])[alone], apart[alone], own[alone])

    def _few_of(self, things: Things) -> Iterator[slice]:
        """So few things at a time that what is computed for each frame needs little memory."""
        step = max(1, _MOST_AT_ONCE // max(1, len(self.seconds)))
        for begin in range(0, len(things), step):
            yield slice(begin, begin + step)

    def _inside(
        self, since: Seconds, until: Seconds, *, ends: bool = False
    ) -> tuple[Places, Places, Seconds]:
        """All frames within spans of time (N,), with their ends or without: the span of each one,
        its place, and its time."""
        seconds = np.array(self.seconds)
        begin = np.searchsorted(seconds, since, "left" if ends else "right")
        end = np.searchsorted(seconds, until, "right" if ends else "left")
        counts = np.maximum(end - begin, 0)
        rows = np.repeat(np.arange(len(counts)), counts)
        before = np.cumsum(counts) - counts
        places = np.arange(len(rows)) + np.repeat(begin - before, counts)
        return rows, places, seconds[places]

    def _steps_between(self, places: Places, seconds: Seconds) -> NDArray[np.int64]:
        """How many inferred frames the frames in these places are from those times, at least 1."""
        steps = np.array(self._steps)
        others = np.searchsorted(np.array(self.seconds), seconds, "right") - 1
        apart: NDArray[np.int64] = np.abs(steps[places] - steps[np.maximum(others, 0)])
        return apart.clip(1)

    def _cover(self, places: Places, boxes: Boxes, apart_seconds: Seconds, own: Boxes) -> None:
        """Cover a box in each of these frames; as `_enlarged`."""
        if not len(places):
            return
        enlarged = self._enlarged(boxes, apart_seconds, own)
        pixels, inside = on_pixels(enlarged, self._rules.size_wh)
        if not len(pixels):
            return
        order = np.argsort(places[inside], kind="stable")
        different, begins = np.unique(places[inside][order], return_index=True)
        parts = np.split(pixels[order], begins[1:])
        for place, part in zip(different.tolist(), parts, strict=True):
            self._covers[place].add(part.copy())  # Else all parts stay until the last one goes.

    def _enlarged(self, boxes: Boxes, apart_seconds: Seconds, own: Boxes) -> Boxes:
        """Boxes with the margin, and with more for the time between them and a find.

        own: the boxes of the things themselves, of which both are shares.
        """
        sides = own[:, 2:] - own[:, :2]
        more = np.minimum(_GROWTH_PER_SECOND * apart_seconds, _MOST_GROWTH)
        grown = more[:, None] * sides.max(axis=1, keepdims=True)
        return reached(boxes, np.maximum(self._rules.margin * sides, _LEAST_MARGIN_PX) + grown)
