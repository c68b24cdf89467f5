"""Whether two ways to detect give the same boxes, and how sure a sample makes of that."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.core.boxes import Detections, pair_boxes

SURE_CONFIDENCE = 0.35
"""Boxes below it are not counted: near the threshold they may come and go."""
LEAST_IOU = 0.9
LEAST_SHARE = 0.99
_Z_95 = 1.959964
"""A normal variable lies within so many standard deviations with a probability of 95%."""


@dataclass(frozen=True, slots=True)
class Share:
    """So many of a number of boxes have a partner."""

    num_partnered: int = 0
    num_boxes: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(self.num_partnered + other.num_partnered, self.num_boxes + other.num_boxes)

    @property
    def value(self) -> float:
        """1 if there are no boxes."""
        return self.num_partnered / self.num_boxes if self.num_boxes else 1.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval of the share, if these boxes are a sample of all."""
        if not self.num_boxes:
            return 0.0, 1.0
        n, p = self.num_boxes, self.value
        spread = _Z_95 * math.sqrt(p * (1 - p) / n + _Z_95**2 / (4 * n * n))
        centre, scale = p + _Z_95**2 / (2 * n), 1 + _Z_95**2 / n
        low, high = (centre - spread) / scale, (centre + spread) / scale
        # Rounding may leave the share outside: all of the boxes would be less than all.
        return max(0.0, min(p, low)), min(1.0, max(p, high))


@dataclass(frozen=True, slots=True)
class Agreement:
    """The sure boxes of two sides, and how many of each have a partner on the other side.

    Agreements of several frames add up.
    """

    ours: Share = Share()
    theirs: Share = Share()

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(self.ours + other.ours, self.theirs + other.theirs)

    @property
    def worse(self) -> Share:
        """That of the side with the smaller share."""
        return min(self.ours, self.theirs, key=lambda share: (share.value, share.interval))

    @property
    def share(self) -> float:
        return self.worse.value

    @property
    def num_boxes(self) -> int:
        """The sure boxes of the side that has fewer."""
        return min(self.ours.num_boxes, self.theirs.num_boxes)

    @property
    def same(self) -> bool:
        return self.share >= LEAST_SHARE

    def is_below(self, least_share: float) -> bool:
        """Whether the whole interval of the worse side lies below a share."""
        return self.worse.interval[1] < least_share

    def is_undecided(self, least_share: float) -> bool:
        """Whether a share lies within the interval of the worse side: the sample is too small."""
        low, high = self.worse.interval
        return low < least_share <= high


def agreement(
    ours: Sequence[Detections],
    theirs: Sequence[Detections],
    least_iou: float = LEAST_IOU,
    sure_confidence: float = SURE_CONFIDENCE,
) -> Agreement:
    """Compare the boxes of two sides, frame by frame.

    Counted are boxes of sure_confidence or more; a partner is of the same class, overlaps by an
    IoU of least_iou or more, and may have a lower confidence. A box has at most one.
    """
    total = Agreement()
    for a, b in zip(ours, theirs, strict=True):
        indices_a, indices_b = pair_boxes(a, b, least_iou)
        total += Agreement(
            *(
                Share(
                    int((found.confidence[indices] >= sure_confidence).sum()),
                    int((found.confidence >= sure_confidence).sum()),
                )
                for found, indices in ((a, indices_a), (b, indices_b))
            )
        )
    return total
