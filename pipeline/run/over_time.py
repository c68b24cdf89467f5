"""Counts per class in equal stretches of time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from pipeline.core.detection_lines import DetectedFrame

_WIDTHS_SECONDS = (
    *(0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30),
    *(60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 21600, 43200),
)
_MOST_BINS = 60
_MOST_ASKED_BINS = 100_000


def bin_seconds_for(seconds: float) -> float:
    """A round width that divides so many seconds into at most 60 bins."""
    enough = (width for width in _WIDTHS_SECONDS if seconds <= width * _MOST_BINS)
    return float(next(enough, 86400))


def widened(bin_seconds: float, seconds: float) -> float:
    """The width that was asked for, or a multiple that divides so many seconds into 100,000 bins.

    A recording may have a gap of hours or of years.
    """
    return bin_seconds * max(1, math.ceil(seconds / (bin_seconds * _MOST_ASKED_BINS)))


class CountsOverTime:
    """How many there are of each class in each bin."""

    def __init__(self, bin_seconds: float) -> None:
        self.bin_seconds = bin_seconds
        self._counts: Counter[tuple[str, int]] = Counter()

    def add(self, class_name: str, seconds: float) -> None:
        """Count one of this class at this time."""
        self._counts[class_name, self.bin_of(seconds)] += 1

    def bin_of(self, seconds: float) -> int:
        """The number of the bin of a time."""
        # Times have six decimals: 0.3 belongs to the fourth bin of 0.1 s.
        return int(seconds / self.bin_seconds + 1e-6)

    def per_class(self, num_bins: int) -> dict[str, list[int]]:
        """The counts in bins 0 to num_bins - 1; those of most come first."""
        totals: Counter[str] = Counter()
        for (name, _), number in self._counts.items():
            totals[name] += number
        found = {name: [0] * num_bins for name, _ in totals.most_common()}
        for (name, at), number in self._counts.items():
            found[name][at] += number
        return found


class BoxesOverTime:
    """The boxes of all frames that pass, by class and time, with the number of these frames."""

    def __init__(self, bin_seconds: float) -> None:
        self.boxes = CountsOverTime(bin_seconds)
        self._frames: Counter[int] = Counter()

    def add(self, frame: DetectedFrame) -> None:
        """Count the boxes of a frame."""
        self._frames[self.boxes.bin_of(frame.pts_seconds)] += 1
        for box in frame.boxes:
            self.boxes.add(box.class_name, frame.pts_seconds)

    @property
    def num_bins(self) -> int:
        return max(self._frames, default=-1) + 1

    def as_record(self) -> dict[str, Any]:
        """The width of a bin in seconds; for each bin from 0 s on, its frames and boxes."""
        return {
            "bin_seconds": self.boxes.bin_seconds,
            "frames": [self._frames[at] for at in range(self.num_bins)],
            "boxes": self.boxes.per_class(self.num_bins),
        }


def boxes_over_time(frames: Iterable[DetectedFrame], seconds: float) -> dict[str, Any]:
    """The record of all frames of a clip that lasts so long."""
    found = BoxesOverTime(bin_seconds_for(seconds))
    for frame in frames:
        found.add(frame)
    return found.as_record()
