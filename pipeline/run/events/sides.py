"""When tracks change from one side of a line, or of the outline of a zone, to the other.

A point on the line itself is where it was before. A change counts when the track has come further
from the line than its margin, so that a box that trembles on the line changes once; it is dated
to the frame in which the track was last found on the new side for the first time. The first and
the last position of a track count as they are: a track that ends on the other side, however near,
has changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

When = TypeVar("When")


@dataclass(frozen=True, slots=True)
class Change(Generic[When]):
    """A track is on another side than before.

    is_positive: whether on the positive side. along: where the straight line between the two
    sightings passes. is_first: whether it was not seen before.
    """

    track_id: int
    is_positive: bool
    along: float
    when: When
    is_first: bool = False


class _Place(Generic[When]):
    """Of one track. is_positive: the side that counts; None before it is known."""

    __slots__ = ("along", "distance", "is_positive", "pending")

    def __init__(self, distance: float, along: float) -> None:
        self.distance, self.along = distance, along
        self.is_positive: bool | None = None
        self.pending: Change[When] | None = None


class Sides(Generic[When]):
    """The sides of all tracks at one line; memory grows with the number of tracks."""

    def __init__(self) -> None:
        self._places: dict[int, _Place[When]] = {}

    def see(
        self, track_id: int, distance: float, along: float, margin: float, when: When
    ) -> Change[When] | None:
        """The change that is certain now that a track was seen; in order of time for each track.

        distance: from the line, positive on one side, in pixels. along: the place along the line.
        margin: how far from the line is clear of it, in pixels. when: the frame.
        """
        place = self._places.get(track_id)
        if place is None:
            place = self._places[track_id] = _Place(distance, along)
        before, place.distance = place.distance, distance
        along_before, place.along = place.along, along
        if distance == 0:
            return None
        is_positive = distance > 0
        if is_positive == place.is_positive:
            place.pending = None
            return None
        if place.is_positive is None:
            place.is_positive = is_positive
            return Change(track_id, is_positive, along, when, is_first=True)
        if place.pending is None:
            share = before / (before - distance)
            passed = along_before + share * (along - along_before)
            place.pending = Change(track_id, is_positive, passed, when)
        return self._settled(place) if abs(distance) > margin else None

    def end(self) -> Iterator[Change[When]]:
        """The changes of tracks that were last seen within the margin, on the other side."""
        for place in self._places.values():
            if place.pending is not None:
                yield self._settled(place)

    @staticmethod
    def _settled(place: _Place[When]) -> Change[When]:
        change, place.pending = place.pending, None
        assert change is not None
        place.is_positive = change.is_positive
        return change
