"""Counts of boxes by class, confidence and time, in bounded memory for a clip of any length."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.detection_lines import DetectedFrame

_MOST_BINS = 2048
_FIRST_BIN_SECONDS = 0.05
LEVELS = 20
"""Boxes are counted in so many equal ranges of confidence."""


class Overview:
    """Counts the boxes of all frames that pass, in at most 2048 equal stretches of time."""

    def __init__(self) -> None:
        self.bin_seconds = _FIRST_BIN_SECONDS
        self._frames = np.zeros(_MOST_BINS, np.int64)
        self._boxes: dict[int, NDArray[np.int64]] = {}  # (bins, levels) of each class.

    def add(self, frame: DetectedFrame) -> None:
        """Count the boxes of a frame."""
        while frame.pts_seconds >= self.bin_seconds * _MOST_BINS:
            self._halve()
        at = max(0, int(frame.pts_seconds / self.bin_seconds))
        self._frames[at] += 1
        for box in frame.boxes:
            counts = self._boxes.get(box.class_id)
            if counts is None:
                counts = np.zeros((_MOST_BINS, LEVELS), np.int64)
                self._boxes[box.class_id] = counts
            # Confidences have up to four decimals: 0.35 belongs to the level that begins with it.
            counts[at, max(0, min(LEVELS - 1, int(box.confidence * LEVELS + 1e-6)))] += 1

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

    def _halve(self) -> None:
        """Join each two bins into one."""
        self.bin_seconds *= 2
        for counts in (self._frames, *self._boxes.values()):
            joined = counts[::2] + counts[1::2]
            counts[:] = 0
            counts[: _MOST_BINS // 2] = joined


def _rows(counts: NDArray[np.int64]) -> list[list[int]]:
    rows = []
    for at in np.flatnonzero(counts.any(axis=1)).tolist():
        levels = np.flatnonzero(counts[at])
        first, last = int(levels[0]), int(levels[-1])
        rows.append([at, first, *counts[at, first : last + 1].tolist()])
    return rows
