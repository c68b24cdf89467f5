"""Interpolated boxes, compared with those that the model finds in the same frames."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from pipeline.core.agreement import SURE_CONFIDENCE, Agreement, Share, agreement
from pipeline.core.boxes import Detections

AUDIT_IOUS = (0.5, 0.75)
DECIDING_IOU = 0.75
_MARGIN = 0.1

Verdict = Literal["agrees", "undecided", "below"]


def sure_confidence(threshold: float) -> float:
    """The least confidence of boxes that do not come and go at a threshold."""
    return max(SURE_CONFIDENCE, threshold + _MARGIN)


@dataclass(slots=True)
class Audit:
    """The frames that were compared; `ours` are the interpolated boxes, `theirs` the inferred.

    by_iou: the agreement at each of AUDIT_IOUS.
    """

    num_frames: int = 0
    by_iou: dict[float, Agreement] = field(
        default_factory=lambda: dict.fromkeys(AUDIT_IOUS, Agreement())
    )

    @property
    def deciding(self) -> Agreement:
        return self.by_iou[DECIDING_IOU]

    def verdict(self, least_share: float) -> Verdict:
        """Whether the whole interval lies below a share, or not; undecided: it contains it."""
        if self.deciding.is_below(least_share):
            return "below"
        return "undecided" if self.deciding.is_undecided(least_share) else "agrees"

    def compare(self, interpolated: Detections, inferred: Detections, threshold: float) -> None:
        """Count one frame in.

        threshold: the least confidence of the boxes. Only those of 0.1 more count: nearer to it,
            boxes come and go.
        """
        sure = sure_confidence(threshold)
        self.num_frames += 1
        for iou in AUDIT_IOUS:
            self.by_iou[iou] += agreement([interpolated], [inferred], iou, sure)

    def add(self, other: Audit) -> None:
        self.num_frames += other.num_frames
        for iou in AUDIT_IOUS:
            self.by_iou[iou] += other.by_iou[iou]

    def as_record(self) -> dict[str, Any]:
        """Plain values, for a file; `from_record` reads them."""
        by_iou = {str(iou): asdict(found) for iou, found in self.by_iou.items()}
        return {"num_frames": self.num_frames, "by_iou": by_iou}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Audit:
        """Raises KeyError or TypeError for what is not such a record."""
        return cls(
            record["num_frames"],
            {
                iou: Agreement(
                    **{side: Share(**values) for side, values in record["by_iou"][str(iou)].items()}
                )
                for iou in AUDIT_IOUS
            },
        )
