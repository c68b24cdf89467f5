"""Whether two ways to run a model give the same boxes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.boxes import Detections, pair_boxes

SURE_CONFIDENCE = 0.35
LEAST_IOU = 0.9
LEAST_SHARE = 0.99


@dataclass(frozen=True, slots=True)
class Agreement:
    """The share of sure boxes that have a partner on the other side, both ways, and how many.

    A partner is of the same class and overlaps by an IoU of 0.9 or more; sure is a confidence of
    0.35 or more: nearer to the threshold, boxes may come and go.
    """

    share: float
    num_boxes: int

    @property
    def same(self) -> bool:
        return self.share >= LEAST_SHARE


def agreement(ours: Sequence[Detections], theirs: Sequence[Detections]) -> Agreement:
    """Compare frame by frame; the worse of the two directions counts."""
    sure, partnered = [0, 0], [0, 0]
    for a, b in zip(ours, theirs, strict=True):
        pairs = pair_boxes(a, b, LEAST_IOU)
        for side, (found, indices) in enumerate(zip((a, b), pairs, strict=True)):
            sure[side] += int((found.confidence >= SURE_CONFIDENCE).sum())
            partnered[side] += int((found.confidence[indices] >= SURE_CONFIDENCE).sum())
    shares = [found / total for found, total in zip(partnered, sure, strict=True) if total]
    return Agreement(min(shares, default=1.0), min(sure))
