"""Detection lines -> when things appear: a row per track, or per stretch in which a class is found.

Frames are read one at a time.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from pipeline.core.detection_lines import DetectedBox, DetectedFrame

_LONGEST_GAP_SECONDS = 1.0 + 1e-6  # Times have six decimals.
"""A class that is not found for longer appears anew."""


@dataclass(slots=True)
class Appearance:
    """One appearance, from its first to its last frame.

    track_id: None for a class rather than a track. best: the most confident box, found at frame
    best_frame. most: boxes in a frame, at most.
    """

    class_id: int
    track_id: int | None
    first_frame: int
    last_frame: int
    last_seconds: float
    best_frame: int
    best: DetectedBox
    most: int = 1


class Appearances:
    """Collects the appearances of frames that follow each other."""

    def __init__(self) -> None:
        self._ended: list[Appearance] = []
        self._tracks: dict[int, Appearance] = {}
        self._classes: dict[int, Appearance] = {}

    def add(self, frame: DetectedFrame) -> None:
        """Take a frame's boxes, the most confident first."""
        counts = Counter(box.class_id for box in frame.boxes if box.track_id is None)
        for box in frame.boxes:
            if box.track_id is not None:
                _extend(self._tracks, box.track_id, frame, box)
            elif box.class_id in counts:
                number = counts.pop(box.class_id)  # Once for all boxes of a class.
                known = self._classes.get(box.class_id)
                if known and frame.pts_seconds - known.last_seconds > _LONGEST_GAP_SECONDS:
                    self._ended.append(self._classes.pop(box.class_id))
                of_class = _extend(self._classes, box.class_id, frame, box)
                of_class.most = max(of_class.most, number)

    def in_order(self) -> list[Appearance]:
        """Those of all frames so far, by their first frame."""
        found = [*self._ended, *self._tracks.values(), *self._classes.values()]
        return sorted(found, key=lambda a: (a.first_frame, -a.best.confidence, a.class_id))


def _extend(
    known: dict[int, Appearance], key: int, frame: DetectedFrame, box: DetectedBox
) -> Appearance:
    index = frame.frame_index
    found = known.get(key)
    if found is None:
        found = known[key] = Appearance(
            box.class_id, box.track_id, index, index, frame.pts_seconds, index, box
        )
    found.last_frame, found.last_seconds = index, frame.pts_seconds
    if box.confidence > found.best.confidence:
        found.best_frame, found.best, found.class_id = index, box, box.class_id
    return found
