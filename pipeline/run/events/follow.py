"""One pass over the boxes of a clip -> its crossings, visits and counts."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from pipeline.core.detection_lines import DetectedFrame
from pipeline.core.notes import note
from pipeline.run.events.geometry import Numbers, anchor_points, from_line, from_outline
from pipeline.run.events.shapes import Shape, Shapes
from pipeline.run.events.sides import Change, Sides
from pipeline.run.over_time import BoxesOverTime, CountsOverTime, bin_seconds_for, widened

MARGIN = 0.1

_FRAMES_AT_ONCE = 256

IN, OUT = "in", "out"


class Moment(NamedTuple):
    """A frame and its time on the clip's clock."""

    frame_index: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Crossing:
    """A track passes a line. direction: "in" from its right to its left, else "out"."""

    line: str
    direction: str
    track_id: int
    class_name: str
    at: Moment


@dataclass(frozen=True, slots=True)
class Visit:
    """A track is in a zone.

    begin: the first frame in it. entered: whether it was seen outside before. end: the first frame
    outside again or, if it has not left, the last one in which it was seen.
    """

    zone: str
    track_id: int
    class_name: str
    begin: Moment
    entered: bool
    end: Moment
    left: bool

    @property
    def dwell_seconds(self) -> float:
        return round(self.end.seconds - self.begin.seconds, 6)


@dataclass(frozen=True, slots=True)
class Events:
    """What happened in a clip. class_name of an event: that of most boxes of the track.

    num_tracks: those that were seen. boxes: of all frames. zone_boxes: boxes whose anchor is in a
    zone, with or without a track, by the name of the zone.
    """

    crossings: list[Crossing]
    visits: list[Visit]
    num_tracks: int
    num_boxes: int
    boxes: BoxesOverTime
    zone_boxes: dict[str, CountsOverTime]

    def crossings_over_time(self, line: str, direction: str) -> CountsOverTime:
        """The crossings of a line in one direction."""
        counts = CountsOverTime(self.boxes.boxes.bin_seconds)
        for crossing in self.crossings:
            if (crossing.line, crossing.direction) == (line, direction):
                counts.add(crossing.class_name, crossing.at.seconds)
        return counts


def follow(
    frames: Iterable[DetectedFrame],
    shapes: Shapes,
    clip_seconds: float,
    margin: float = MARGIN,
) -> Events:
    """Find the events of a clip.

    shapes: in pixels of the frames. clip_seconds: when its last frame ends, for the width of bins.
    margin: what is clear of a line or an outline, as a share of the shorter side of a box.
    Memory grows with the number of tracks and events, not with that of boxes.
    """
    bin_seconds = _bin_seconds(shapes.bin_seconds, clip_seconds)
    boxes = BoxesOverTime(bin_seconds)
    tracks = _Tracks()
    lines = [_LineWatch(line, margin) for line in shapes.lines]
    zones = [_ZoneWatch(zone, margin, bin_seconds) for zone in shapes.zones]
    frames = iter(frames)
    while chunk := list(itertools.islice(frames, _FRAMES_AT_ONCE)):
        for frame in chunk:
            boxes.add(frame)
        found = _Found(chunk)
        if found.boxes:
            tracks.see(found)
            for line in lines:
                line.see(found)
            for zone in zones:
                zone.see(found)
    return Events(
        sorted(
            (crossing for line in lines for crossing in line.crossings(tracks)),
            key=lambda crossing: (crossing.at, crossing.line, crossing.track_id),
        ),
        sorted(
            (visit for zone in zones for visit in zone.visits(tracks)),
            key=lambda visit: (visit.begin, visit.zone, visit.track_id),
        ),
        len(tracks.last),
        tracks.num_boxes,
        boxes,
        {zone.shape.name: zone.boxes for zone in zones},
    )


def _bin_seconds(asked: float | None, clip_seconds: float) -> float:
    if asked is None:
        return bin_seconds_for(clip_seconds)
    bin_seconds = widened(asked, clip_seconds)
    if bin_seconds != asked:
        note(f"bin_seconds is {bin_seconds:g} instead of {asked:g}, because the clip is so long")
    return bin_seconds


class _Found:
    """The boxes of some frames, and those that have a track.

    xyxy: (n, 4). is_tracked: (n,). track_ids, moments, shorter_sides: of the boxes with a track.
    """

    def __init__(self, frames: Sequence[DetectedFrame]) -> None:
        pairs = [
            (moment, box)
            for frame in frames
            for moment in [Moment(frame.frame_index, frame.pts_seconds)]
            for box in frame.boxes
        ]
        self.boxes = pairs
        self.xyxy: Numbers = np.array([box.xyxy for _, box in pairs], np.float64).reshape(-1, 4)
        self.is_tracked = np.array([box.track_id is not None for _, box in pairs], np.bool_)
        self.track_ids = [box.track_id for _, box in pairs if box.track_id is not None]
        self.moments = [moment for moment, box in pairs if box.track_id is not None]
        sizes = self.xyxy[self.is_tracked, 2:] - self.xyxy[self.is_tracked, :2]
        self.shorter_sides: Numbers = sizes.min(axis=1)


class _Tracks:
    """The class and the last frame of each track."""

    def __init__(self) -> None:
        self.last: dict[int, Moment] = {}
        self.num_boxes = 0
        self._classes: dict[int, Counter[str]] = defaultdict(Counter)

    def see(self, found: _Found) -> None:
        self.num_boxes += len(found.boxes)
        for moment, box in found.boxes:
            if box.track_id is not None:
                self.last[box.track_id] = moment
                self._classes[box.track_id][box.class_name] += 1

    def class_of(self, track_id: int) -> str:
        return self._classes[track_id].most_common(1)[0][0]


class _Watch:
    """The sides of tracks at one line or outline."""

    def __init__(self, margin: float) -> None:
        self._sides, self._margin = Sides[Moment](), margin

    def _changes(self, found: _Found, distances: Numbers, along: Numbers) -> list[Change[Moment]]:
        """distances, along: of the boxes with a track."""
        seen = zip(
            found.track_ids,
            distances.tolist(),
            along.tolist(),
            (self._margin * found.shorter_sides).tolist(),
            found.moments,
            strict=True,
        )
        return [change for entry in seen if (change := self._sides.see(*entry))]


class _LineWatch(_Watch):
    def __init__(self, shape: Shape, margin: float) -> None:
        super().__init__(margin)
        self._shape = shape
        self._passed: list[Change[Moment]] = []

    def see(self, found: _Found) -> None:
        points = anchor_points(found.xyxy[found.is_tracked], self._shape.anchor)
        self._note(self._changes(found, *from_line(points, self._shape.points)))

    def _note(self, changes: Iterable[Change[Moment]]) -> None:
        self._passed += [c for c in changes if not c.is_first and 0 <= c.along <= 1]

    def crossings(self, tracks: _Tracks) -> Iterator[Crossing]:
        self._note(self._sides.end())
        for change in self._passed:
            direction = IN if change.is_positive else OUT
            name = tracks.class_of(change.track_id)
            yield Crossing(self._shape.name, direction, change.track_id, name, change.when)


class _ZoneWatch(_Watch):
    def __init__(self, shape: Shape, margin: float, bin_seconds: float) -> None:
        super().__init__(margin)
        self.shape = shape
        self.boxes = CountsOverTime(bin_seconds)
        self._inside: dict[int, Change[Moment]] = {}
        self._visits: list[tuple[Change[Moment], Moment]] = []

    def see(self, found: _Found) -> None:
        points = anchor_points(found.xyxy, self.shape.anchor)
        distances = from_outline(points, self.shape.points)
        for at in np.flatnonzero(distances > 0).tolist():
            moment, box = found.boxes[at]
            self.boxes.add(box.class_name, moment.seconds)
        tracked = distances[found.is_tracked]
        self._note(self._changes(found, tracked, np.zeros_like(tracked)))

    def _note(self, changes: Iterable[Change[Moment]]) -> None:
        for change in changes:
            if change.is_positive:
                self._inside[change.track_id] = change
            elif begin := self._inside.pop(change.track_id, None):
                self._visits.append((begin, change.when))

    def visits(self, tracks: _Tracks) -> Iterator[Visit]:
        self._note(self._sides.end())
        for begin, end in self._visits:
            yield self._visit(begin, end, tracks, left=True)
        for begin in self._inside.values():
            yield self._visit(begin, tracks.last[begin.track_id], tracks, left=False)

    def _visit(self, begin: Change[Moment], end: Moment, tracks: _Tracks, *, left: bool) -> Visit:
        return Visit(
            self.shape.name,
            begin.track_id,
            tracks.class_of(begin.track_id),
            begin.when,
            not begin.is_first,
            end,
            left,
        )
