"""Candidates of a head -> threshold -> boxes -> NMS -> source pixels, in plain numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions
from pipeline.model.heads import Candidates, Head, thresholds_of
from pipeline.model.letterbox import Letterbox

MAX_CANDIDATES = 30_000
"""NMS considers no more than this many, the most confident first, as YOLOv5 does."""

_NMS_BLOCK = 16


def detections_from(
    head: Head,
    candidates: Candidates | None,
    letterbox: Letterbox,
    options: DetectOptions,
    class_ids: frozenset[int] | None = None,
    *,
    multi_label: bool = False,
) -> Detections:
    """Boxes of one frame in source pixels.

    options: its classes are not looked at. class_ids: the classes to keep; None keeps all.
    multi_label: let one box stand for every class that passes, as YOLOv5's val.py does;
    otherwise for its best class, as detect.py does. Without NMS it always stands for all: models
    that need none are trained and used so.
    """
    if candidates is None:
        return Detections.empty()
    names = head.class_names
    if multi_label or not head.needs_nms:
        threshold = thresholds_of(options, names, np.arange(len(names)))
        candidates = _for_every_class(head.class_scores(candidates), candidates, threshold)
    class_id, confidence = candidates.class_id, candidates.confidence
    passing = np.flatnonzero(confidence > thresholds_of(options, names, class_id))
    order = passing[np.argsort(-confidence[passing], kind="stable")]
    if class_ids is not None:
        order = order[np.isin(class_id[order], list(class_ids))]
    order = order[:MAX_CANDIDATES]
    if not order.size:
        return Detections.empty()
    candidates = candidates[order]
    xyxy, kept = head.decode(candidates), np.arange(len(order))[: options.max_detections]
    if head.needs_nms:
        groups = np.zeros(len(xyxy), np.int64) if options.agnostic_nms else candidates.class_id
        kept = class_aware_nms(xyxy, groups, options.nms_iou, options.max_detections)
    return Detections(
        letterbox.to_source(xyxy[kept]), candidates.confidence[kept], candidates.class_id[kept]
    )


def _for_every_class(
    scores: NDArray[np.float32],
    candidates: Candidates,
    threshold: float | NDArray[np.float32],
) -> Candidates:
    """A candidate for each class of a box that passes."""
    rows, class_id = np.nonzero(scores > threshold)
    return Candidates(
        candidates.values[rows], candidates.place[rows], class_id, scores[rows, class_id]
    )


def class_aware_nms(
    xyxy: NDArray[np.float32],
    class_id: NDArray[np.int64],
    iou_threshold: float,
    max_detections: int,
) -> NDArray[np.intp]:
    """Which of the boxes stay, when each suppresses those of its class that overlap it more.

    Boxes come most confident first. Returns at most max_detections indices, in that order.
    """
    if not len(xyxy):
        return np.empty(0, np.intp)
    # Classes are moved so far apart that boxes of two of them never overlap.
    spacing = xyxy.max() - xyxy.min() + 1.0
    boxes: NDArray[np.float64] = xyxy.astype(np.float64) + (class_id * spacing)[:, None]
    # Distances of YOLO26 can be negative: such a box has no area and suppresses none.
    area = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0).prod(axis=1)
    # With the first two sides negated, the sides of an intersection are the least of both boxes'.
    sides = np.ascontiguousarray((boxes * (-1.0, -1.0, 1.0, 1.0)).T)
    remaining = np.arange(len(boxes))
    kept: list[int] = []
    while remaining.size and len(kept) < max_detections:
        suppressed = np.zeros(len(remaining), np.bool_)
        overlaps = _overlaps(sides.take(remaining, axis=1), area[remaining], iou_threshold)
        for number, rivals in enumerate(overlaps):
            if not suppressed[number]:
                kept.append(int(remaining[number]))
                suppressed |= rivals
        remaining = remaining[_NMS_BLOCK:][~suppressed[_NMS_BLOCK:]]
    return np.asarray(kept[:max_detections], np.intp)


def _overlaps(
    sides: NDArray[np.float64], area: NDArray[np.float64], iou_threshold: float
) -> NDArray[np.bool_]:
    """Which boxes (columns) overlap each of the first few (rows) by more than the threshold.

    sides: float64 (4, N), -left, -top, right, bottom.
    """
    common = np.minimum(sides[:, None], sides[:, :_NMS_BLOCK, None])
    extent = common[2:]
    extent += common[:2]
    np.maximum(extent, 0.0, out=extent)
    intersection = extent[0] * extent[1]
    union = area + area[:_NMS_BLOCK, None]
    union -= intersection
    union *= iou_threshold
    return np.asarray(~(intersection <= union))
