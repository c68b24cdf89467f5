"""How good the boxes of a run are, against the truth of its scene."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core.boxes import Detections, iou_matrix, pair_boxes
from pipeline.core.detection_lines import read_detection_lines

LEAST_IOU = 0.5


@dataclass(frozen=True, slots=True)
class Judgement:
    """Boxes paired one to one with things of their class that they overlap by LEAST_IOU or more.

    num_things: what was to be seen; num_boxes: what was found; num_pairs: what of both agrees.
    mean_iou: of the pairs; None where there are none.
    """

    num_things: int
    num_boxes: int
    num_pairs: int
    mean_iou: float | None

    @property
    def recall(self) -> float | None:
        """The share of the things that was found; None where there were none."""
        return self.num_pairs / self.num_things if self.num_things else None

    @property
    def precision(self) -> float | None:
        """The share of the boxes that is right; None where there are none."""
        return self.num_pairs / self.num_boxes if self.num_boxes else None


def judge(detections: Path, truth: Path, class_ids: frozenset[int] | None = None) -> Judgement:
    """Compare detections.jsonl with truth.jsonl, line by line.

    class_ids: what was looked for; things of other classes do not count. None takes all. Raises
    ValueError for files of different length.
    """
    num_things = num_boxes = num_pairs = 0
    iou_sum = 0.0
    lines = zip(read_detection_lines(detections), read_detection_lines(truth), strict=True)
    for ours, theirs in lines:
        boxes, things = ours.detections, _of_classes(theirs.detections, class_ids)
        rows, columns = pair_boxes(boxes, things, LEAST_IOU)
        iou_sum += float(iou_matrix(boxes.xyxy, things.xyxy)[rows, columns].sum())
        num_things += len(things)
        num_boxes += len(boxes)
        num_pairs += len(rows)
    return Judgement(num_things, num_boxes, num_pairs, iou_sum / num_pairs if num_pairs else None)


def _of_classes(found: Detections, class_ids: frozenset[int] | None) -> Detections:
    if class_ids is None:
        return found
    chosen = np.isin(found.class_id, list(class_ids))
    return Detections(found.xyxy[chosen], found.confidence[chosen], found.class_id[chosen])
