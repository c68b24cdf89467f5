"""Raw heads -> threshold -> boxes -> NMS -> source pixels, in plain numpy.

Split in two because the heads are only lent: `select_candidates` copies the few rows that can
pass the threshold out of them, `detections_from` does the rest at leisure.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.detections import Detections
from pipeline.heads import HeadConvolution, HeadLayout
from pipeline.letterbox import Letterbox

MAX_CANDIDATES = 30_000
"""NMS considers no more than this many, the most confident first, as YOLOv5 does."""


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
    parts = []
    for i, (stride, anchors) in enumerate(zip(layout.strides, layout.anchors_px, strict=True)):
        head = heads[2 * i] if split else heads[i]
        predictions = head.reshape(-1, 1 if split else layout.num_values)
        rows = np.flatnonzero(predictions[:, 0 if split else 4] > logit_threshold)
        if rows.size:
            cells, anchor = np.divmod(rows, layout.num_anchors)
            row, column = np.divmod(cells, head.shape[1])
            if split:
                features = heads[2 * i + 1]
                logits = _convolve(convolutions[i], features[row, column], anchor)
            else:
                logits = predictions[rows]
            parts.append(
                (
                    logits,
                    np.stack((column, row), axis=1).astype(np.float32),
                    np.full((rows.size, 1), stride, np.float32),
                    np.asarray(anchors, np.float32)[anchor],
                )
            )
    if not parts:
        return None
    return Candidates(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _convolve(
    convolution: HeadConvolution, features: NDArray[np.float32], anchor: NDArray[np.intp]
) -> NDArray[np.float32]:
    """The predictions (N, values) of one anchor each from the features (N, channels) of a cell."""
    logits = convolution.bias[anchor]
    for number in np.unique(anchor):
        chosen = anchor == number
        logits[chosen] += features[chosen] @ convolution.weight[number].T
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
    xyxy = _decode_boxes(candidates, probability)[rows]
    kept = class_aware_nms(xyxy, class_id, iou_threshold, max_detections)
    return Detections(letterbox.to_source(xyxy[kept]), confidence[kept], class_id[kept])


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
    boxes = xyxy.astype(np.float64) + (class_id * spacing)[:, None]
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    remaining = np.arange(len(boxes))
    kept: list[int] = []
    while remaining.size and len(kept) < max_detections:
        first, rest = remaining[0], remaining[1:]
        kept.append(int(first))
        top_left = np.maximum(boxes[rest, :2], boxes[first, :2])
        bottom_right = np.minimum(boxes[rest, 2:], boxes[first, 2:])
        width, height = (bottom_right - top_left).clip(0).T
        intersection = width * height
        union = area[rest] + area[first] - intersection
        remaining = rest[intersection <= iou_threshold * union]
    return np.asarray(kept, np.intp)


def _decode_boxes(candidates: Candidates, probability: NDArray[np.float32]) -> NDArray[np.float32]:
    """YOLOv5's box equations: centre 2s - 0.5 cells from the cell, size (2s)^2 anchors."""
    centre = (probability[:, 0:2] * 2.0 - 0.5 + candidates.cell_xy) * candidates.stride
    half = (probability[:, 2:4] * 2.0) ** 2 * candidates.anchor_wh / 2.0
    return np.concatenate((centre - half, centre + half), axis=1)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # exp overflows float32 below -88; a probability of e^-80 is nothing either way.
    probability: NDArray[np.float32] = 1.0 / (1.0 + np.exp(-logits.clip(min=-80.0)))
    return probability
