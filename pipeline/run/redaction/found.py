"""What was found in a clip, and what decides how it is covered."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST_GAP_SECONDS = 1.0
"""Finds so far apart can be of one thing, or twice the hold if that is longer."""


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
    """hold_seconds: before the first find and after the last. margin: share of a box's sides.

    fastest_sides: how far a thing of unknown speed can go from an inferred frame to the next, in
    its longer sides; see `fastest_sides`.
    """

    size_wh: tuple[int, int]
    hold_seconds: float
    margin: float
    fastest_sides: float = 0.0

    @property
    def gap_seconds(self) -> float:
        """So far apart, two finds can be of one thing."""
        return max(_LEAST_GAP_SECONDS, 2 * self.hold_seconds)
