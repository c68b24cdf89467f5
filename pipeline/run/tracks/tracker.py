"""The trackers of the library `trackers`: boxes of one frame after another -> ids."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import NO_TRACK, Detections
from pipeline.core.errors import UsageError
from pipeline.core.machine import tracker_versions

_LEAST_STEP_SECONDS = 1e-6


class Tracker(Protocol):
    """Gives the boxes of inferred frames the ids of their tracks."""

    def update(self, boxes: Detections, seconds: float) -> NDArray[np.int64]:
        """The id of each box, NO_TRACK for one of no confirmed track; frames come in order.

        boxes: of a frame, weak ones too. seconds: when it is shown.
        """
        ...


def open_tracker(name: str, frame_rate: float, least_confidence: float) -> Tracker:
    """A tracker that has seen no frame. Raises UsageError where the library is missing.

    name: one of TRACKERS. frame_rate: of the clip. least_confidence: boxes of less confidence
    continue a track, and begin none.
    """
    require_trackers()
    return _LibraryTracker(library_tracker(name, frame_rate, least_confidence))


def library_tracker(name: str, frame_rate: float, least_confidence: float) -> Any:
    """The tracker of the library that `open_tracker` runs."""
    from trackers import BoTSORTTracker, ByteTrackTracker, OCSORTTracker

    strong: dict[str, Any] = {
        "frame_rate": frame_rate,
        "high_conf_det_threshold": least_confidence,
    }
    if name == "ocsort":
        return OCSORTTracker(**strong)
    begins = {**strong, "track_activation_threshold": least_confidence}
    if name == "botsort":
        # Without pixels, nothing can be known of how the camera moves.
        return BoTSORTTracker(**begins, enable_cmc=False)
    return ByteTrackTracker(**begins)


def require_trackers() -> None:
    """Raise UsageError where the library is missing."""
    try:
        tracker_versions()
    except PackageNotFoundError as error:
        raise UsageError(
            "tracks need the extra track: see Installation in docs/usage.md"
        ) from error


class _LibraryTracker:
    """Ids count from 1, in the order in which tracks are confirmed."""

    def __init__(self, tracker: Any) -> None:
        self._tracker = tracker
        self._seconds = -1.0

    def update(self, boxes: Detections, seconds: float) -> NDArray[np.int64]:
        import supervision

        # Rounded times may be equal, and the library discards a frame that is not later.
        self._seconds = max(seconds, self._seconds + _LEAST_STEP_SECONDS)
        found = self._tracker.update(
            supervision.Detections(
                xyxy=boxes.xyxy, confidence=boxes.confidence, data={"row": np.arange(len(boxes))}
            ),
            timestamp=self._seconds,
        )
        ids = np.full(len(boxes), NO_TRACK, np.int64)
        if len(found):  # In another order, and without those that it does not look at.
            tracked = np.asarray(found.tracker_id) >= 0
            ids[np.asarray(found.data["row"])[tracked]] = found.tracker_id[tracked] + 1
        return ids
