"""Raw heads -> threshold -> boxes -> NMS -> source pixels, in plain numpy.

Split in two because the heads are only lent: `select_candidates` copies the few rows that can
pass the threshold out of them, `detections_from` does the rest at leisure.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.model.heads import HeadConvolution, HeadLayout
from pipeline.model.letterbox import Letterbox

MAX_CANDIDATES = 30_000
"""NMS considers no more than this many, the most confident first, as YOLOv5 does."""

_NEARLY = 0.9999
_NMS_BLOCK = 32


@dataclass(frozen=True, slots=True)
class Candidates:
    """The predictions of one frame whose objectness passes the threshold.

    logits: float32 (N, 5 + classes), before the sigmoid.
    cell_xy: float32 (N, 2), column and row in the head's grid.
    stride: float32 (N, 1); anchor_wh: float32 (N, 2); pixels of the model input.
    """

    logits: NDArray[np.float32]
    cell_xy: NDArray[np.float32]
    stride: NDArray[np.float32]
    anchor_wh: NDArray[np.float32]

    def rows(self, chosen: NDArray[np.intp]) -> Candidates:
        """The chosen ones, in the order that they are named in."""
        return Candidates(
            self.logits[chosen], self.cell_xy[chosen], self.stride[chosen], self.anchor_wh[chosen]
        )


def select_candidates(
    heads: Sequence[NDArray[np.float32]],
    layout: HeadLayout,
    confidence_threshold: float,
    convolutions: Sequence[HeadConvolution] = (),
) -> Candidates | None:
    """Copy out the predictions that can reach the threshold; None if there are none.

    heads: one float32 array (rows, columns, anchors * (5 + classes)) per stride; or two, the
    objectness (rows, columns, anchors) and the features (rows, columns, channels), from which
    `convolutions` makes the rest. Confidence is objectness times class probability, so
    objectness alone must pass: its logit is compared, and only what passes is touched again.
    """
    logit_threshold = math.log(confidence_threshold / (1.0 - confidence_threshold))
    if len(heads) not in (len(layout.strides), 2 * len(convolutions)):
        raise ValueError(
            f"expected {len(layout.strides)} heads, or as many pairs with their convolutions, "
            f"got {len(heads)} arrays and {len(convolutions)} convolutions"
        )
    split = len(heads) > len(layout.strides)
    num_values = 1 if split else layout.num_values
    logits, places = [], []
    for level in range(len(layout.strides)):
        head = heads[2 * level] if split else heads[level]
        predictions = head.reshape(-1, num_values)
        rows = np.flatnonzero(predictions[:, 0 if split else 4] > logit_threshold)
        if not rows.size:
            continue
        if split:
            logits.append(_convolve(convolutions[level], heads[2 * level + 1], rows))
        else:
            logits.append(predictions[rows])
        places.append(_places(layout, level, head.shape[:2])[rows])
    if not places:
        return None
    place = np.concatenate(places)
    return Candidates(np.concatenate(logits), place[:, :2], place[:, 2:3], place[:, 3:])


@functools.lru_cache(maxsize=64)
def _places(layout: HeadLayout, level: int, shape_hw: tuple[int, int]) -> NDArray[np.float32]:
    """Column, row, stride, anchor width and height of every prediction of a level, (N, 5)."""
    height, width = shape_hw
    row, column, anchor = np.indices((height, width, layout.num_anchors)).reshape(3, -1)
    anchors = np.asarray(layout.anchors_px[level], np.float32)
    stride = np.full(len(row), layout.strides[level])
    return np.column_stack((column, row, stride, anchors[anchor])).astype(np.float32)


def _convolve(
    convolution: HeadConvolution, features: NDArray[np.float32], rows: NDArray[np.intp]
) -> NDArray[np.float32]:
    """The predictions (N, values) at some rows, from the features (rows, columns, channels).

    One product for each anchor: one of all features with all anchors takes half as long again.
    """
    num_anchors, num_values, channels = convolution.weight.shape
    cells, anchor = np.divmod(rows, num_anchors)
    by_anchor = np.argsort(anchor, kind="stable")
    chosen = features.reshape(-1, channels)[cells[by_anchor]]
    made = np.empty((len(rows), num_values), np.float32)
    begin = 0
    for number, count in enumerate(np.bincount(anchor, minlength=num_anchors).tolist()):
        part = slice(begin, begin + count)
        np.matmul(chosen[part], convolution.weight[number].T, out=made[part])
        made[part] += convolution.bias[number]
        begin += count
    logits = np.empty_like(made)
    logits[by_anchor] = made
    return logits


def detections_from(
    candidates: Candidates | None,
    letterbox: Letterbox,
    *,
    confidence_threshold: float,
    iou_threshold: float,
    max_detections: int,
    class_ids: frozenset[int] | None = None,
    multi_label: bool = False,
) -> Detections:
    """Boxes of one frame in source pixels.

    multi_label: let one box stand for every class that passes, as YOLOv5's val.py does;
    otherwise for its best class, as detect.py does.
    """
    if candidates is None:
        return Detections.empty()
    candidates = _promising(candidates, confidence_threshold)
    probability = _sigmoid(candidates.logits)
    scores = probability[:, 5:] * probability[:, 4:5]
    if multi_label:
        rows, class_id = np.nonzero(scores > confidence_threshold)
    else:
        best = scores.argmax(axis=1)
        rows = np.flatnonzero(scores[np.arange(len(best)), best] > confidence_threshold)
        class_id = best[rows]
    if class_ids is not None:
        wanted = np.isin(class_id, list(class_ids))
        rows, class_id = rows[wanted], class_id[wanted]
    if not rows.size:
        return Detections.empty()
    confidence = scores[rows, class_id]
    order = np.argsort(-confidence, kind="stable")[:MAX_CANDIDATES]
    rows, class_id, confidence = rows[order], class_id[order], confidence[order]
    xyxy = _decode_boxes(candidates.rows(rows), probability[rows, :4])
    kept = class_aware_nms(xyxy, class_id, iou_threshold, max_detections)
    return Detections(letterbox.to_source(xyxy[kept]), confidence[kept], class_id[kept])


def _promising(candidates: Candidates, confidence_threshold: float) -> Candidates:
    """Those that their best class may take over the threshold: one of three, in most footage."""
    objectness, best = candidates.logits[:, 4], candidates.logits[:, 5:].max(axis=1)
    confidence = _sigmoid(objectness) * _sigmoid(best)
    # A little more than pass: the exact comparison comes later.
    return candidates.rows(np.flatnonzero(confidence > _NEARLY * confidence_threshold))


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
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
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


def _decode_boxes(candidates: Candidates, probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """YOLOv5's box equations: centre 2s - 0.5 cells from the cell, size (2s)^2 anchors."""
    centre = (probability[:, 0:2] * 2.0 - 0.5 + candidates.cell_xy) * candidates.stride
    half = (probability[:, 2:4] * 2.0) ** 2 * candidates.anchor_wh / 2.0
    return np.concatenate((centre - half, centre + half), axis=1)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # exp overflows float32 below -88; a probability of e^-80 is nothing either way.
    probability: NDArray[np.float32] = 1.0 / (1.0 + np.exp(-np.maximum(logits, np.float32(-80.0))))
    return probability
