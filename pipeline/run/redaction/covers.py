"""The boxes found in a whole clip -> what is covered in each frame, without pixels.

A thing is followed from one inferred frame to the next one in which it is found. Between the two,
everything is covered where it can have been; before the first find and after the last one, what
was found is covered for a while, and where it was heading. Where it is not sure that two finds are
of one thing, they count as one and as two: more is covered, never less.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import greedy_pairs, iou_matrix

Box = NDArray[np.float64]
"""Left, top, right, bottom."""

_SURE_IOU = 0.4
"""From this overlap with where it is expected, a box is taken for the same thing."""

_LEAST_GAP_SECONDS = 1.0
"""Finds so far apart can be of one thing, or twice the hold if that is longer."""

_FARTHEST_SIZES, _FARTHEST_SHARE, _MOST_STEPS = 4.5, 0.16, 4
"""A thing of unknown speed goes so many of its sizes from an inferred frame to the next, or such a
share of the diagonal, and is followed for so many of them."""

_MOST_SIZE_RATIO, _MOST_LINKS = 3.0, 2
"""A thing changes its size so much at most; a new box is linked to so many earlier ones."""

_ASIDE_SECONDS = 0.15
"""So long a thing can have gone another way than straight to where it was found next."""

_GROWTH_PER_SECOND, _MOST_GROWTH = 0.5, 1.0
"""Of its longer side: how much less is known of where a thing is that was found so long ago."""

_SPEED_MARGIN = 1.25
_LEAST_MARGIN_PX = 2.0


@dataclass(frozen=True, slots=True)
class FoundBoxes:
    """The boxes to cover in one frame.

    xyxy: float (N, 4). class_id: (N,). inferred: whether the model has looked at this frame.
    """

    seconds: float
    xyxy: NDArray[np.float32]
    class_id: NDArray[np.int64]
    inferred: bool = True


@dataclass(frozen=True, slots=True)
class CoverRules:
    """hold_seconds: before the first find and after the last. margin: share of a box's sides."""

    size_wh: tuple[int, int]
    hold_seconds: float
    margin: float

    @property
    def gap_seconds(self) -> float:
        """So far apart, two finds can be of one thing."""
        return max(_LEAST_GAP_SECONDS, 2 * self.hold_seconds)


@dataclass(slots=True)
class _Thing:
    """Something that was found.

    box, seconds: where and when last. speed: of its four edges, px/s. missed_seconds: of the first
    inferred frame since then without it. steps: inferred frames since then. first: where and when
    it was found first, and from when on it is to be covered; None once that is done.
    """

    class_id: int
    box: Box
    seconds: float
    first: tuple[Box, float, float] | None
    speed: Box = field(default_factory=lambda: np.zeros(4))
    is_moving: bool = False
    missed_seconds: float | None = None
    steps: int = 1

    def expected(self, seconds: float) -> Box:
        return self.box + self.speed * (seconds - self.seconds)

    def found(self, box: Box, seconds: float) -> None:
        speed = (box - self.box) / max(seconds - self.seconds, 1e-6)
        self.speed = (self.speed + speed) / 2 if self.is_moving else speed
        self.box, self.seconds, self.is_moving = box, seconds, True
        self.missed_seconds, self.steps = None, 1


def covers(frames: Iterable[FoundBoxes], rules: CoverRules) -> Iterator[NDArray[np.int64]]:
    """What is covered in each frame: whole pixels (N, 4), even ones but at the frame's edge.

    Frames come in order of their times. Holds back the frames of one gap and one hold.
    """
    following = _Following(rules)
    for frame in frames:
        following.add(frame)
        yield from following.final()
    following.end()
    yield from following.final()


class _Following:
    """Follows things, and collects what is covered in the frames that are not final yet."""

    def __init__(self, rules: CoverRules) -> None:
        self._rules = rules
        self._things: list[_Thing] = []
        self._seconds: list[float] = []
        self._covers: list[list[Box]] = []
        self._inferred_before: float = -np.inf
        self._final_before: float = -np.inf

    def add(self, frame: FoundBoxes) -> None:
        """Take the next frame."""
        boxes = frame.xyxy.astype(np.float64)
        if self._seconds and frame.seconds < self._seconds[-1]:
            raise ValueError("frames are not in order of their times")
        self._seconds.append(frame.seconds)
        self._covers.append([self._enlarged(box) for box in boxes])
        if not frame.inferred:
            return
        self._follow(boxes, frame.class_id, frame.seconds)
        self._inferred_before = frame.seconds
        needed = [frame.seconds - self._rules.hold_seconds]
        needed += [t.seconds if t.first is None else t.first[2] for t in self._things]
        self._final_before = min(needed)

    def end(self) -> None:
        """No frame follows."""
        for thing in self._things:
            self._finish(thing)
        self._things, self._final_before = [], np.inf

    def final(self) -> Iterator[NDArray[np.int64]]:
        """What is covered in the frames of which that is known now."""
        count = bisect_left(self._seconds, self._final_before)
        for covered in self._covers[:count]:
            yield _on_pixels(covered, self._rules.size_wh)
        del self._seconds[:count], self._covers[:count]

    def _follow(self, boxes: Box, class_id: NDArray[np.int64], seconds: float) -> None:
        known = self._things
        matched = self._sure_pairs(boxes, class_id, seconds)
        missed = [thing for row, thing in enumerate(known) if row not in matched]
        for row, number in matched.items():
            self._find_again(known[row], boxes[number], seconds)
        begun = sorted(set(range(len(boxes))).difference(matched.values()))
        new = [self._begin(boxes[n], int(class_id[n]), seconds, missed) for n in begun]
        alive = []
        for thing in missed:
            thing.steps += 1
            if thing.missed_seconds is None:
                thing.missed_seconds = seconds
            if seconds - thing.seconds >= self._rules.gap_seconds:
                self._finish(thing)
            else:
                alive.append(thing)
        self._things = [known[row] for row in matched] + alive + new

    def _sure_pairs(
        self, boxes: Box, class_id: NDArray[np.int64], seconds: float
    ) -> dict[int, int]:
        """The number of the box that each thing surely has now, by the place of the thing."""
        if not self._things or not len(boxes):
            return {}
        found = boxes.astype(np.float32)
        overlap = np.maximum(
            iou_matrix(_stacked(t.expected(seconds) for t in self._things), found),
            iou_matrix(_stacked(t.box for t in self._things), found),
        )
        classes = np.array([thing.class_id for thing in self._things])
        overlap[classes[:, None] != class_id[None]] = 0.0
        return greedy_pairs(overlap, _SURE_IOU)

    def _find_again(self, thing: _Thing, box: Box, seconds: float) -> None:
        self._cover_between(thing, box, seconds)
        thing.found(box, seconds)
        self._cover_beginning(thing)

    def _begin(self, box: Box, class_id: int, seconds: float, missed: list[_Thing]) -> _Thing:
        """A thing that was not seen before, unless it is one of those that are missed now."""
        diagonal_px = float(np.hypot(*self._rules.size_wh))
        near = sorted(
            (distance, row)
            for row, thing in enumerate(missed)
            if thing.class_id == class_id
            and (distance := _distance(thing, box, seconds, diagonal_px)) is not None
        )
        for _, row in near[:_MOST_LINKS]:
            self._cover_between(missed[row], box, seconds)
        since = min(seconds - self._rules.hold_seconds, self._after_last_inferred())
        begun = _Thing(class_id, box, seconds, (box, seconds, since))
        if near:
            thing = missed[near[0][1]]
            begun.speed = (box - thing.box) / max(seconds - thing.seconds, 1e-6)
            if not thing.is_moving:  # Nothing better is known of where it came from.
                thing.speed = begun.speed
        return begun

    def _after_last_inferred(self) -> float:
        place = bisect_right(self._seconds, self._inferred_before)
        return self._seconds[place] if place < len(self._seconds) else self._inferred_before

    def _cover_between(self, thing: _Thing, box: Box, seconds: float) -> None:
        """Cover all that lies between two finds, and the way that a thing can go aside."""
        begin = bisect_right(self._seconds, thing.seconds)
        end = bisect_left(self._seconds, seconds)
        both = np.concatenate((np.minimum(thing.box, box)[:2], np.maximum(thing.box, box)[2:]))
        known = thing.is_moving or begin >= end
        speed = thing.speed if known else (box - thing.box) / (seconds - thing.seconds)
        speed_xy = np.abs(speed).reshape(2, 2).max(axis=0) * _SPEED_MARGIN
        for place in range(begin, end):
            apart = min(self._seconds[place] - thing.seconds, seconds - self._seconds[place])
            aside = speed_xy * min(apart, _ASIDE_SECONDS)
            self._covers[place].append(self._enlarged(_reached(both, aside), apart))

    def _cover_beginning(self, thing: _Thing) -> None:
        """Cover what the thing has been before its first find, once its speed is known."""
        if thing.first is None:
            return
        box, seconds, since = thing.first
        thing.first = None
        self._hold(box, -thing.speed, seconds, (since, seconds))

    def _finish(self, thing: _Thing) -> None:
        """Cover what the thing has been after its last find."""
        self._cover_beginning(thing)
        until = thing.seconds + self._rules.hold_seconds
        until = np.inf if thing.missed_seconds is None else max(until, thing.missed_seconds)
        self._hold(thing.box, thing.speed, thing.seconds, (thing.seconds, until))

    def _hold(
        self, box: Box, speed: Box, seconds: float, span_seconds: tuple[float, float]
    ) -> None:
        """Cover a box for a while, and where it would be if it went on at a speed."""
        begin = bisect_left(self._seconds, span_seconds[0])
        end = bisect_right(self._seconds, span_seconds[1])
        way = np.tile((speed[:2] + speed[2:]) / 2, 2)
        for place in range(begin, end):
            apart = abs(self._seconds[place] - seconds)
            for where in (box, box + way * apart):
                self._covers[place].append(self._enlarged(where, apart))

    def _enlarged(self, box: Box, apart_seconds: float = 0.0) -> Box:
        """With the margin, and with more for the time between it and a find."""
        sides = box[2:] - box[:2]
        more = min(_GROWTH_PER_SECOND * apart_seconds, _MOST_GROWTH) * float(sides.max())
        by = np.maximum(self._rules.margin * sides, _LEAST_MARGIN_PX) + more
        return np.concatenate((box[:2] - by, box[2:] + by))


def _reached(box: Box, by_xy: Box) -> Box:
    """The box with its edges moved outwards."""
    return np.concatenate((box[:2] - by_xy, box[2:] + by_xy))


def _distance(thing: _Thing, box: Box, seconds: float, diagonal_px: float) -> float | None:
    """How far a box is from where a thing is expected, in its sizes; None if it is another one.

    diagonal_px: of the frame.
    """
    sizes = [float(np.sqrt(max((b[2] - b[0]) * (b[3] - b[1]), 1.0))) for b in (thing.box, box)]
    if max(sizes) > _MOST_SIZE_RATIO * min(sizes):
        return None
    size, gap_seconds = max(sizes), seconds - thing.seconds
    way_xy, missed_xy = _between(thing.box, box), _between(thing.expected(seconds), box)
    distance = min(float(np.hypot(*way_xy)), float(np.hypot(*missed_xy)))
    if not thing.is_moving:
        farthest = thing.steps * min(_FARTHEST_SIZES * size, _FARTHEST_SHARE * diagonal_px)
        return distance / size if thing.steps <= _MOST_STEPS and distance <= farthest else None
    if distance > size:
        # It can have turned back in each direction.
        reach_xy = np.abs(_between(thing.box, thing.expected(seconds))) + size / 2
        if gap_seconds > _ASIDE_SECONDS or (np.abs(way_xy) > reach_xy).any():
            return None
    return distance / size


def _between(a: Box, b: Box) -> Box:
    """The way from the centre of a box to that of another, in pixels."""
    return (b[:2] + b[2:] - a[:2] - a[2:]) / 2


def _stacked(boxes: Iterable[Box]) -> NDArray[np.float32]:
    return np.array(list(boxes), np.float32).reshape(-1, 4)


def _on_pixels(boxes: list[Box], size_wh: tuple[int, int]) -> NDArray[np.int64]:
    """Outwards to even pixels, within the frame, and without those that others contain."""
    found = np.array(boxes).reshape(-1, 4)
    left_top, right_bottom = np.floor(found[:, :2] / 2) * 2, np.ceil(found[:, 2:] / 2) * 2
    clipped = np.hstack((np.maximum(left_top, 0), np.minimum(right_bottom, size_wh)))
    inside = (clipped[:, :2] < clipped[:, 2:]).all(axis=1)
    pixels: NDArray[np.int64] = np.unique(clipped[inside].astype(np.int64), axis=0)
    contains = (pixels[:, None, :2] <= pixels[None, :, :2]).all(axis=2)
    contains &= (pixels[:, None, 2:] >= pixels[None, :, 2:]).all(axis=2)
    kept: NDArray[np.int64] = pixels[contains.sum(axis=0) == 1]
    return kept
