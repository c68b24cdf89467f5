"""Sources without a file of packets: any frame can be made, by its number."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

from pipeline.media.carried import Carried
from pipeline.media.frame import WHOLE, Frame, Segment, SourceFaults, VideoInfo


class NumberedSource(ABC):
    """A FrameSource of numbered frames. numbers: of those that are taken."""

    info: VideoInfo
    timeline = None

    def __init__(self, numbers: range) -> None:
        self.faults = SourceFaults()
        self.worker_threads: frozenset[int] = frozenset()
        self._numbers = numbers

    @abstractmethod
    def _frames(self, numbers: range) -> Iterator[Frame]:
        """The frames of these numbers, which are among those that are taken, counted from 0."""

    def frames(self, segment: Segment = WHOLE) -> Iterator[Frame]:
        """The frames of a segment, counted from 0."""
        return self._frames(self._numbers[segment.start_pts or 0 : segment.end_pts])

    def sample(self, count: int) -> Iterator[Frame]:
        """At most `count` frames, spread over the clip."""
        return self._frames(self._numbers[:: -(-len(self._numbers) // count)])

    def streams_left_out(self, carried: Carried) -> list[str]:
        """There is nothing beside the frames."""
        return []

    def close(self) -> None:  # noqa: B027  # No source needs more.
        """Nothing is open between two frames."""
