"""The boxes found in a whole clip -> what is covered in each frame, without pixels.

A thing is followed from one inferred frame to the next one in which it is found. Between the two,
everything is covered where it can have been; before the first find and after the last one, what
was found is covered for a while, and the way that it was going. Where it is not sure that two finds
are of one thing, they count as one and as two: more is covered, never less.
"""

from __future__ import annotations

import dataclasses
from bisect import bisect_right
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from pipeline.run.redaction.found import CoverRules, FoundBoxes
from pipeline.run.redaction.links import possible_pairs, sure_pairs
from pipeline.run.redaction.pending import PendingFrames
from pipeline.run.redaction.rectangles import Boxes
from pipeline.run.redaction.things import NONE, Things
from pipeline.run.redaction.ways import SHORT_SECONDS, short_ways


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
    """Follows things from frame to frame, and covers them."""

    def __init__(self, rules: CoverRules) -> None:
        self._rules = rules
        self._frames = PendingFrames(rules)
        self._diagonal_px = float(np.hypot(*rules.size_wh))
        self._things = Things.begun(np.empty((0, 4)), np.empty(0, np.int64), (0.0, 0.0))
        self._num_begun = 0
        self._inferred_before: float = -np.inf
        self._final_before: float = -np.inf

    def add(self, frame: FoundBoxes) -> None:
        """Take the next frame."""
        self._frames.add(frame)
        if not frame.inferred:
            return
        self._follow(frame.xyxy.astype(np.float64), frame.class_id, frame.seconds)
        self._inferred_before = frame.seconds
        needed = (frame.seconds - self._rules.hold_seconds, np.inf)
        things = self._things
        self._final_before = float(min(*needed, *things.seconds, *things.since))

    def end(self) -> None:
        """No frame follows."""
        self._finish(self._things)
        self._final_before = np.inf

    def final(self) -> Iterator[NDArray[np.int64]]:
        """What is covered in the frames of which that is known now."""
        return self._frames.final(self._final_before)

    def _follow(self, boxes: Boxes, class_id: NDArray[np.int64], seconds: float) -> None:
        rows, numbers, speeds = sure_pairs(self._things, boxes, class_id, seconds)
        is_missed = np.ones(len(self._things), bool)
        is_missed[rows] = False
        is_new = np.ones(len(boxes), bool)
        is_new[numbers] = False
        again, missed = self._things.where(rows), self._things.where(is_missed)
        missed = _confirmed(again, speeds, missed)
        self._find_again(again, boxes[numbers], seconds)
        since = min(seconds - self._rules.hold_seconds, self._after_last_inferred())
        new = Things.begun(boxes[is_new], class_id[is_new], (since, seconds), self._num_begun)
        self._num_begun += len(new)
        self._link(missed, new, seconds)
        missed.steps += 1
        missed.missed_seconds = np.minimum(missed.missed_seconds, seconds)
        missed.since[missed.is_gap & (seconds - missed.seconds > SHORT_SECONDS)] = np.inf
        is_gone = seconds - missed.seconds >= self._rules.gap_seconds
        self._finish(missed.where(is_gone))
        self._things = again.followed_by(missed.where(~is_gone)).followed_by(new)

    def _find_again(self, things: Things, box: Boxes, seconds: float) -> None:
        self._frames.cover_gaps(things, box, seconds)
        speeds = np.full_like(things.speeds, np.nan)
        whole = seconds - things.seconds
        speeds[:, 0] = (box - things.box) / np.maximum(whole, 1e-6)[:, None]
        before = dataclasses.replace(things)
        things.found(box, seconds)
        waiting = ~np.isinf(things.since)
        self._frames.cover_before(things.where(waiting), speeds[waiting])
        things.since = np.where(short_ways(before.box, box, whole), before.seconds, np.inf)
        things.since[before.seconds >= self._inferred_before] = np.inf
        things.before_box, things.until_box = before.box, box
        things.until, things.is_gap = np.full(len(things), seconds), np.ones(len(things), bool)

    def _link(self, missed: Things, new: Things, seconds: float) -> None:
        """New things can be missed ones."""
        rows, numbers = possible_pairs(missed, new, seconds, self._diagonal_px)
        box = new.box[numbers]
        self._frames.cover_gaps(missed.where(rows), box, seconds)
        apart = np.maximum(seconds - missed.seconds[rows], 1e-6)
        speeds = (box - missed.box[rows]) / apart[:, None]
        for row, number, speed in zip(rows.tolist(), numbers.tolist(), speeds, strict=True):
            new.add_speed(number, speed, int(missed.number[row]))
            missed.add_speed(row, speed)

    def _after_last_inferred(self) -> float:
        place = bisect_right(self._frames.seconds, self._inferred_before)
        seconds = self._frames.seconds
        return seconds[place] if place < len(seconds) else self._inferred_before

    def _finish(self, things: Things) -> None:
        """Cover what things have been after their last find."""
        waiting = ~np.isinf(things.since)
        self._frames.cover_before(things.where(waiting), things.speeds[waiting])
        self._frames.hold(things, things.speeds)


def _confirmed(again: Things, speeds: NDArray[np.int64], missed: Things) -> Things:
    """The missed things without those that were found again: under another number, on their way.

    speeds: by which of its speeds each is where it was found again; -1 if by none.
    """
    origins = np.where(speeds >= 0, again.origins[np.arange(len(again)), speeds], NONE)
    by_number = {number: row for row, number in enumerate(missed.number.tolist())}
    pairs = [(row, by_number[n]) for row, n in enumerate(origins.tolist()) if n in by_number]
    rows, places = np.array(pairs, np.intp).reshape(-1, 2).T
    again.continue_from(rows, missed.where(places))
    is_left = np.ones(len(missed), bool)
    is_left[places] = False
    return missed.where(is_left)
