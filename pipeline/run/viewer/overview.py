"""Counts of boxes by class, confidence and time, in bounded memory for a clip of any length."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.detection_lines import DetectedFrame

_MOST_BINS = 2048
_FIRST_BIN_SECONDS = 0.05
_MOST_ROWS = 1 << 19
"""A row is a bin of a class. Models with more classes than 256 get fewer bins: 42 MB at most."""
LEVELS = 20
"""Boxes are counted in so many equal ranges of confidence."""


class Overview:
    """Counts the boxes of all frames that pass, in at most 2048 equal stretches of time."""

    def __init__(self) -> None:
        self.bin_seconds = _FIRST_BIN_SECONDS
        self._num_bins = _MOST_BINS
        self._frames = np.zeros(_MOST_BINS, np.uint32)
        self._boxes: dict[int, NDArray[np.uint32]] = {}  # (bins, levels) of each class.

    def add(self, frame: DetectedFrame) -> None:
        """Count the boxes of a frame."""
        for class_id in {box.class_id for box in frame.boxes} - self._boxes.keys():
            self._boxes[class_id] = np.zeros((self._num_bins, LEVELS), np.uint32)
        while len(self._boxes) * self._num_bins > _MOST_ROWS:
            self._num_bins //= 2
            self._join_bins()
        while frame.pts_seconds >= self.bin_seconds * self._num_bins:
            self._join_bins()
        at = max(0, int(frame.pts_seconds / self.bin_seconds))
        self._frames[at] += 1
        for box in frame.boxes:
            # Confidences have up to four decimals: 0.35 belongs to the level that begins with it.
            level = max(0, min(LEVELS - 1, int(box.confidence * LEVELS + 1e-6)))
            self._boxes[box.class_id][at, level] += 1

    def as_record(self) -> dict[str, Any]:
        """Width of a bin in seconds, frames in each, and for each class its bins that have boxes.

        Those are lists of a bin, its first level with boxes, and the counts from that one on.
        """
        used = np.flatnonzero(self._frames)
        num_bins = int(used[-1]) + 1 if len(used) else 0
        return {
            "bin_seconds": self.bin_seconds,
            "levels": LEVELS,
            "frames": self._frames[:num_bins].tolist(),
            "boxes": {str(class_id): _rows(counts) for class_id, counts in self._boxes.items()},
        }

    def _join_bins(self) -> None:
        """Make the bins twice as wide."""
        self.bin_seconds *= 2
        self._frames = _joined(self._frames, self._num_bins)
        for class_id, counts in self._boxes.items():
            self._boxes[class_id] = _joined(counts, self._num_bins)


def _joined(counts: NDArray[np.uint32], num_bins: int) -> NDArray[np.uint32]:
    """The sums of each two bins, and empty bins after them up to this number."""
    sums = counts[::2] + counts[1::2]
    return np.concatenate([sums, np.zeros((num_bins - len(sums), *sums.shape[1:]), np.uint32)])


def _rows(counts: NDArray[np.uint32]) -> list[list[int]]:
    rows = []
    for at in np.flatnonzero(counts.any(axis=1)).tolist():
        levels = np.flatnonzero(counts[at])
        first, last = int(levels[0]), int(levels[-1])
        rows.append([at, first, *counts[at, first : last + 1].tolist()])
    return rows
