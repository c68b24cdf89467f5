"""How frames become detections, and what the model found in a frame -> its boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions
from pipeline.core.detect_options import WEAK_CONFIDENCE
from pipeline.core.region import Region, Window
from pipeline.frames.sampling import Sampler
from pipeline.frames.views import Part, View
from pipeline.model.heads import Candidates, Head, thresholds_of
from pipeline.model.postprocess import detections_from
from pipeline.model.seams import SeamRules, merged


@dataclass(frozen=True, slots=True)
class DetectSettings:
    """How frames become detections.

    class_ids: the classes to keep; None keeps all.
    windows: what is inferred of each frame, each on its own; the last one shows all of it.
    region: where boxes are kept; None for everywhere. crop: what is looked at of each frame; None
        for all of it.
    reuse_duplicates: give a frame whose model input equals the one before, to the byte, the
        detections of that one.
    stall_seconds: see `ProcessConfig`.
    keeps_weak: also find the boxes that only a tracker needs; they change no others.
    """

    options: DetectOptions
    windows: tuple[Window, ...]
    class_ids: frozenset[int] | None
    sampler: Sampler
    reuse_duplicates: bool
    stall_seconds: float
    region: Region | None = None
    crop: Window | None = None
    keeps_weak: bool = False


class FrameBoxes:
    """The boxes of frames, of three levels of confidence.

    Some are asked for. Others, less confident, are for the sampler; the least confident are for a
    tracker.
    """

    def __init__(self, settings: DetectSettings, head: Head, views: Sequence[View]) -> None:
        self._settings, self._head, self._views = settings, head, views
        self._asked = settings.options
        self._sampled = self._asked.down_to(settings.sampler.weakest_confidence)
        self._options = self._sampled.down_to(WEAK_CONFIDENCE if settings.keeps_weak else 1.0)

    @property
    def least_confidence(self) -> float:
        """The lowest threshold of all levels."""
        return self._options.least_confidence

    def of(self, parts: Sequence[Part]) -> Detections:
        """All boxes of a frame, in its pixels; parts: what was found in each view."""
        found = [
            (view.window, self._in_view(view, part.candidates))
            for view, part in zip(self._views, parts, strict=True)
        ]
        if len(found) == 1:
            return found[0][1]
        asked = self._asked
        rules = SeamRules(asked.nms_iou, asked.agnostic_nms, asked.max_detections)
        return merged(found, self._is_weak, rules)

    def asked_for(self, boxes: Detections) -> Detections:
        return boxes.above(self._least(self._asked, boxes))

    def sampled(self, boxes: Detections) -> Detections:
        """Without the boxes that only a tracker needs."""
        return boxes.above(self._least(self._sampled, boxes)) if self._keeps_weak else boxes

    def weak(self, boxes: Detections) -> Detections | None:
        """Those that are less confident than asked for; None if none are kept."""
        if not self._keeps_weak:
            return None
        return boxes.where(self._is_weak(boxes))

    def _is_weak(self, boxes: Detections) -> NDArray[np.bool_]:
        return boxes.confidence <= self._least(self._asked, boxes)

    @property
    def _keeps_weak(self) -> bool:
        return self._settings.keeps_weak

    def _least(self, options: DetectOptions, boxes: Detections) -> float | NDArray[np.float32]:
        return thresholds_of(options, self._head.class_names, boxes.class_id)

    def _in_view(self, view: View, candidates: Candidates | None) -> Detections:
        """The boxes in a view, in pixels of the frame."""
        found = self._detections_by(self._options, view, candidates)
        if self._keeps_weak and self._options.class_thresholds:
            # Boxes below the threshold of their class must not take the place of those above.
            weak = found.where(found.confidence <= self._least(self._sampled, found))
            found = self._detections_by(self._sampled, view, candidates).followed_by(weak)
        left, top = view.window.left, view.window.top
        return found.moved(left, top) if left or top else found

    def _detections_by(
        self, options: DetectOptions, view: View, candidates: Candidates | None
    ) -> Detections:
        class_ids = self._settings.class_ids
        return detections_from(self._head, candidates, view.letterbox, options, class_ids)
