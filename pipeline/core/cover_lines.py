"""The lines of covers.jsonl: what is covered in each frame."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class CoverLine:
    """What is covered in one frame.

    pts_seconds: when a player shows it. covers: int64 (N, 4), left, top, right, bottom in pixels
    of the displayed source frame, the last two outside; even, but at the edge of the frame.
    """

    frame_index: int
    pts_seconds: float
    covers: NDArray[np.int64]

    def to_json(self) -> str:
        """A line without its end."""
        record = {
            "frame_index": self.frame_index,
            "pts_seconds": self.pts_seconds,
            "covers": self.covers.tolist(),
        }
        return json.dumps(record)

    @classmethod
    def from_json(cls, line: str) -> CoverLine:
        """Raises ValueError, KeyError or TypeError for what is no such line."""
        record = json.loads(line)
        covers = np.array(record["covers"], np.float64).reshape(-1, 4)
        whole = covers.astype(np.int64)
        if (whole != covers).any() or (whole < 0).any() or (whole[:, :2] % 2).any():
            raise ValueError("a cover is not on whole even pixels")
        if (whole[:, :2] >= whole[:, 2:]).any():
            raise ValueError("a cover is empty")
        return cls(int(record["frame_index"]), float(record["pts_seconds"]), whole)
