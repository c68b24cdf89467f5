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
from pipeline.core.config import DetectOptions
from pipeline.model.heads import HeadConvolution, HeadLayout
from pipeline.model.letterbox import Letterbox

MAX_CANDIDATES = 30_000
"""NMS considers no more than this many, the most confident first, as YOLOv5 does."""

_NEARLY = 0.9999
_NMS_BLOCK = 16


@dataclass(frozen=True, slots=True)
class Candidates:
    """The predictions of one frame whose best class may pass the threshold.

    logits: float32 (N, 5 + classes), before the sigmoid.
    place: float32 (N, 5), column and row in the head's grid, then stride, anchor width and anchor
        height in pixels of the model input.
    class_id: int64 (N,), the best class; confidence: float32 (N,), of that class.
    """

    logits: NDArray[np.float32]
    place: NDArray[np.float32]
    class_id: NDArray[np.int64]
    confidence: NDArray[np.float32]


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
    num_values, column = (1, 0) if split else (layout.num_values, 4)
    firsts = [head.reshape(-1, num_values) for head in (heads[::2] if split else heads)]
    passing = [(first[:, column] > logit_threshold).nonzero()[0] for first in firsts]
    if not (num_passing := sum(map(len, passing))):
        return None
    logits = np.empty((num_passing, layout.num_values), np.float32)
    number = np.empty(num_passing, np.intp)
    begin = num_before = 0
    for level, rows in enumerate(passing):
        part = slice(begin, begin + len(rows))
        if split:
            rows = _convolve(convolutions[level], heads[2 * level + 1], rows, out=logits[part])
        else:
            logits[part] = firsts[level][rows]
        np.add(rows, num_before, out=number[part])
        begin, num_before = part.stop, num_before + len(firsts[level])
    class_id = logits[:, 5:].argmax(axis=1)
    best = logits[np.arange(num_passing), 5 + class_id]
    confidence = np.multiply(*_sigmoid(np.array((logits[:, 4], best))))
    # A little more than pass: with several classes to a box, each is compared later.
    likely = np.flatnonzero(confidence > _NEARLY * confidence_threshold)
    if not likely.size:
        return None
    likely = likely[number[likely].argsort()]
    shapes_hw = tuple(head.shape[:2] for head in (heads[::2] if split else heads))
    place = _places(layout, shapes_hw)[number[likely]]
    return Candidates(logits[likely], place, class_id[likely], confidence[likely])


@functools.lru_cache(maxsize=64)
def _places(layout: HeadLayout, shapes_hw: tuple[tuple[int, int], ...]) -> NDArray[np.float32]:
    """Column, row, stride, anchor width and height of every prediction of all levels, (N, 5)."""
    levels = []
    for shape_hw, level_stride, level_anchors in zip(
        shapes_hw, layout.strides, layout.anchors_px, strict=True
    ):
        row, column, anchor = np.indices((*shape_hw, layout.num_anchors)).reshape(3, -1)
        stride = np.full(len(row), level_stride)
        levels.append(np.column_stack((column, row, stride, np.array(level_anchors)[anchor])))
    return np.concatenate(levels).astype(np.float32)


def _convolve(
    convolution: HeadConvolution,
    features: NDArray[np.float32],
    rows: NDArray[np.intp],
    *,
    out: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Write the predictions (N, values) at some rows, and return the rows in the order of these.

    features: (rows, columns, channels). The order is that of the anchors: one product for each of
    them takes two thirds of the time of one product of all features with all anchors.
    """
    num_anchors, _, channels = convolution.weight.shape
    cells, anchor = np.divmod(rows, num_anchors)
    by_anchor = anchor.argsort(kind="stable")
    chosen = features.reshape(-1, channels)[cells[by_anchor]]
    begin = 0
    for number, count in enumerate(np.bincount(anchor, minlength=num_anchors).tolist()):
        end = begin + count
        part = out[begin:end]
        np.matmul(chosen[begin:end], convolution.weight[number].T, out=part)
        part += convolution.bias[number]
        begin = end
    return rows[by_anchor]


def detections_from(
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
    otherwise for its best class, as detect.py does.
    """
    if candidates is None:
        return Detections.empty()
    threshold = options.confidence_threshold
    place, box_logits = candidates.place, candidates.logits[:, :4]
    class_id, confidence = candidates.class_id, candidates.confidence
    if multi_label:
        probability = _sigmoid(candidates.logits[:, 4:])
        scores = probability[:, 1:] * probability[:, :1]
        rows, class_id = np.nonzero(scores > threshold)
        place, box_logits, confidence = place[rows], box_logits[rows], scores[rows, class_id]
    # Those that pass come first.
    order = np.argsort(-confidence, kind="stable")
    order = order[: np.count_nonzero(confidence > threshold)]
    if class_ids is not None:
        order = order[np.isin(class_id[order], list(class_ids))]
    order = order[:MAX_CANDIDATES]
    if not order.size:
        return Detections.empty()
    class_id, confidence = class_id[order], confidence[order]
    xyxy = _decode_boxes(place[order], _sigmoid(box_logits[order]))
    kept = class_aware_nms(xyxy, class_id, options.iou_threshold, options.max_detections)
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


def _decode_boxes(
    place: NDArray[np.float32], probability: NDArray[np.float32]
) -> NDArray[np.float32]:
    """YOLOv5's box equations: centre 2s - 0.5 cells from the cell, size (2s)^2 anchors."""
    centre = (probability[:, 0:2] * 2.0 - 0.5 + place[:, 0:2]) * place[:, 2:3]
    half = (probability[:, 2:4] * 2.0) ** 2 * place[:, 3:5] / 2.0
    return np.concatenate((centre - half, centre + half), axis=1)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # exp overflows float32 below -88; a probability of e^-80 is nothing either way.
    probability: NDArray[np.float32] = np.maximum(logits, np.float32(-80.0))
    np.negative(probability, out=probability)
    np.exp(probability, out=probability)
    probability += 1.0
    np.reciprocal(probability, out=probability)
    return probability
