"""Raw heads -> boxes, against YOLOv5's equations written out slowly."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions
from pipeline.model.letterbox import Letterbox, letterbox
from pipeline.model.postprocess import class_aware_nms, detections_from
from pipeline.model.yolov5 import HeadConvolution, HeadLayout, YOLOv5Head

Heads = list[NDArray[np.float32]]

LAYOUT = HeadLayout(
    class_names=("cat", "dog", "bird"),
    anchors_px=(
        ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
        ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
        ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
    ),
    strides=(8, 16, 32),
)
HEAD = YOLOv5Head(LAYOUT)
BOX = letterbox((150, 90), (96, 64))


@dataclass(frozen=True)
class Found:
    xyxy: list[float]
    confidence: float
    class_id: int


def random_heads(seed: int, spread: float = 3.0) -> Heads:
    random = np.random.default_rng(seed)
    shapes = [(64 // stride, 96 // stride, 3 * LAYOUT.num_values) for stride in LAYOUT.strides]
    return [random.normal(0, spread, shape).astype(np.float32) for shape in shapes]


def no_heads(value: float = -30.0) -> Heads:
    return [np.full_like(head, value) for head in random_heads(0)]


def put(heads: Heads, head: int, row: int, column: int, anchor: int, logits: list[float]) -> None:
    start = anchor * LAYOUT.num_values
    heads[head][row, column, start : start + LAYOUT.num_values] = logits


def detect(
    heads: Heads,
    box: Letterbox = BOX,
    class_ids: frozenset[int] | None = None,
    multi_label: bool = False,
    **asked: Any,
) -> Detections:
    usual = {"confidence_threshold": 0.25, "iou_threshold": 0.45, "max_detections": 300}
    options = DetectOptions(**{**usual, **asked})
    candidates = HEAD.select(heads, options.confidence_threshold)
    return detections_from(HEAD, candidates, box, options, class_ids, multi_label=multi_label)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def overlap(a: list[float], b: list[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / union


def reference(
    heads: Heads,
    confidence_threshold: float = 0.25,
    iou_threshold: float = 0.45,
    max_detections: int = 300,
    class_ids: frozenset[int] | None = None,
    multi_label: bool = False,
) -> list[Found]:
    """YOLOv5's Detect.forward and non_max_suppression, one prediction after the other."""
    found = []
    for head, stride, anchors in zip(heads, LAYOUT.strides, LAYOUT.anchors_px, strict=True):
        rows, columns, _ = head.shape
        for row in range(rows):
            for column in range(columns):
                for a, (anchor_w, anchor_h) in enumerate(anchors):
                    start = a * LAYOUT.num_values
                    values = [sigmoid(float(v)) for v in head[row, column, start:][:8]]
                    cx = (values[0] * 2 - 0.5 + column) * stride
                    cy = (values[1] * 2 - 0.5 + row) * stride
                    w, h = (values[2] * 2) ** 2 * anchor_w, (values[3] * 2) ** 2 * anchor_h
                    scores = [values[4] * value for value in values[5:]]
                    classes = range(len(scores)) if multi_label else [scores.index(max(scores))]
                    found += [
                        Found([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], scores[c], c)
                        for c in classes
                        if scores[c] > confidence_threshold and (not class_ids or c in class_ids)
                    ]
    found.sort(key=lambda box: -box.confidence)
    kept: list[Found] = []
    for box in found:
        rivals = (other for other in kept if other.class_id == box.class_id)
        if all(overlap(box.xyxy, other.xyxy) <= iou_threshold for other in rivals):
            kept.append(box)
    return [_in_source(box) for box in kept[:max_detections]]


def _in_source(found: Found) -> Found:
    xyxy = [
        min(max((value - BOX.offset_xy[i % 2]) * BOX.source_wh[i % 2] / BOX.content_wh[i % 2], 0.0),
            BOX.source_wh[i % 2])
        for i, value in enumerate(found.xyxy)
    ]  # fmt: skip
    return Found(xyxy, found.confidence, found.class_id)


def assert_same(found: Detections, expected: list[Found]) -> None:
    assert found.class_id.tolist() == [box.class_id for box in expected]
    np.testing.assert_allclose(
        found.confidence, np.array([box.confidence for box in expected]), rtol=1e-4
    )
    np.testing.assert_allclose(
        found.xyxy, np.array([box.xyxy for box in expected]).reshape(-1, 4), atol=0.01
    )
    assert found.xyxy.dtype == found.confidence.dtype == np.float32
    assert found.class_id.dtype == np.int64


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"confidence_threshold": 0.001, "iou_threshold": 0.6, "multi_label": True},
        {"multi_label": True},
        {"class_ids": frozenset({1})},
        {"class_ids": frozenset({0, 2}), "multi_label": True},
        {"max_detections": 7},
        {"iou_threshold": 1.0},
        {"confidence_threshold": 0.9},
    ],
    ids=str,
)
def test_boxes_are_those_of_yolov5s_equations(seed: int, options: dict[str, Any]) -> None:
    heads = random_heads(seed)
    expected = reference(heads, **options)
    assert expected
    assert_same(detect(heads, **options), expected)


@given(
    st.floats(0.001, 0.999),
    st.lists(st.floats(-12, 12, width=32), min_size=1, max_size=96),
)
def test_a_threshold_on_logits_is_a_threshold_on_probabilities(
    threshold: float, objectness: list[float]
) -> None:
    heads = no_heads()
    for i, logit in enumerate(objectness):
        put(heads, 0, i // 12, i % 12, i % 3, [0, 0, 0, 0, logit, 30, 30, 30])
    probability = [sigmoid(float(np.float32(logit))) for logit in objectness]
    if any(abs(value - threshold) < 1e-6 for value in probability):
        return
    candidates = HEAD.select(heads, threshold)
    passed = [] if candidates is None else candidates.values[:, 4].tolist()
    expected = [x for x, p in zip(objectness, probability, strict=True) if p > threshold]
    assert passed == expected


def test_a_prediction_lands_where_its_cell_anchor_and_head_say() -> None:
    heads = no_heads()
    put(heads, 1, 2, 5, 1, [0, 0, 0, 0, 20, -20, 20, -20])
    box = letterbox((96, 64), (96, 64))
    found = detect(heads, box)
    # Logits of 0 are the middle of the cell, (5.5, 2.5) * 16 px, and the anchor itself.
    np.testing.assert_allclose(found.xyxy, [[88 - 31, 40 - 22.5, 96, 40 + 22.5]], atol=1e-3)
    assert found.class_id.tolist() == [1]


def test_two_classes_on_the_same_place_are_both_kept() -> None:
    heads = no_heads()
    put(heads, 0, 3, 3, 0, [0, 0, 0, 0, 20, 4, -20, -20])
    put(heads, 0, 3, 3, 1, [0, 0, -0.3, -0.9, 20, -20, 3, -20])
    put(heads, 0, 3, 3, 2, [0, 0, -1.4, -0.6, 20, 2, -20, -20])
    assert detect(heads).class_id.tolist() == [0, 1]


def test_the_most_confident_of_one_class_on_the_same_place_is_kept() -> None:
    xyxy = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10]], np.float32)
    assert class_aware_nms(xyxy, np.array([4, 4, 4]), 0.45, 10).tolist() == [0, 2]
    assert class_aware_nms(xyxy, np.array([4, 5, 4]), 0.45, 10).tolist() == [0, 1, 2]


def test_an_overlap_of_exactly_the_threshold_is_allowed() -> None:
    xyxy = np.array([[0, 0, 10, 10], [0, 0, 10, 5]], np.float32)
    zeros = np.zeros(2, np.int64)
    assert class_aware_nms(xyxy, zeros, 0.5, 10).tolist() == [0, 1]
    assert class_aware_nms(xyxy, zeros, 0.49, 10).tolist() == [0]


def test_a_box_that_was_suppressed_suppresses_nothing() -> None:
    xyxy = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    assert class_aware_nms(xyxy, np.zeros(3, np.int64), 0.4, 10).tolist() == [0, 2]


@given(
    st.lists(
        st.tuples(
            st.integers(-500, 2000),
            st.integers(-500, 2000),
            st.integers(1, 300),
            st.integers(1, 300),
            st.integers(0, 79),
        ),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 45),
)
def test_nms_equals_comparing_every_pair(
    boxes: list[tuple[int, int, int, int, int]], max_detections: int
) -> None:
    xyxy = [[float(x), float(y), float(x + w), float(y + h)] for x, y, w, h, _ in boxes]
    class_id = [box[4] % 3 * 39 for box in boxes]
    kept: list[int] = []
    for i in range(len(boxes)):
        rivals = [j for j in kept if class_id[j] == class_id[i]]
        if all(overlap(xyxy[i], xyxy[j]) <= 0.4567 for j in rivals):
            kept.append(i)
    found = class_aware_nms(np.array(xyxy, np.float32), np.array(class_id), 0.4567, max_detections)
    assert found.tolist() == kept[:max_detections]


def test_nms_of_no_boxes_keeps_none() -> None:
    nothing = class_aware_nms(np.empty((0, 4), np.float32), np.empty(0, np.int64), 0.45, 10)
    assert nothing.tolist() == []


@pytest.mark.parametrize("limit", [1, 3, 5])
def test_no_more_boxes_than_asked_for_and_the_most_confident_ones(limit: int) -> None:
    heads = random_heads(3)
    everything = detect(heads)
    assert len(everything) > limit
    some = detect(heads, max_detections=limit)
    np.testing.assert_array_equal(some.confidence, everything.confidence[:limit])


def test_boxes_come_most_confident_first() -> None:
    confidence = detect(random_heads(4)).confidence
    assert len(confidence) > 5
    assert (np.diff(confidence) <= 0).all()


def test_only_the_classes_asked_for_come_and_others_suppress_nothing() -> None:
    heads = no_heads()
    put(heads, 0, 3, 3, 0, [0, 0, 0, 0, 20, 8, -20, -20])
    put(heads, 0, 3, 3, 1, [0, 0, -0.3, -0.9, 20, -20, 3, -20])
    assert detect(heads, class_ids=frozenset({1})).class_id.tolist() == [1]
    assert len(detect(heads, class_ids=frozenset({2}))) == 0


def test_one_box_can_stand_for_several_classes_only_if_asked() -> None:
    heads = no_heads()
    put(heads, 2, 1, 1, 0, [0, 0, 0, 0, 20, 2, 3, -20])
    assert detect(heads).class_id.tolist() == [1]
    assert detect(heads, multi_label=True).class_id.tolist() == [1, 0]


def test_objectness_alone_is_not_enough() -> None:
    heads = no_heads()
    put(heads, 0, 0, 0, 0, [0, 0, 0, 0, 0.5, -0.5, -1, -1])
    assert len(detect(heads, confidence_threshold=0.2)) == 1
    assert HEAD.select(heads, 0.25) is None
    assert len(detect(heads)) == 0


def test_nothing_seen_is_an_empty_result() -> None:
    assert HEAD.select(no_heads(), 0.25) is None
    found = detect(no_heads())
    assert len(found) == 0
    assert found.xyxy.shape == (0, 4)


def test_what_was_selected_does_not_change_with_the_heads_it_came_from() -> None:
    heads = random_heads(5)
    expected = reference(heads)
    candidates = HEAD.select(heads, 0.25)
    for head in heads:
        head.fill(50.0)
    found = detections_from(
        HEAD,
        candidates,
        BOX,
        DetectOptions(confidence_threshold=0.25, iou_threshold=0.45, max_detections=300),
    )
    assert_same(found, expected)


def test_read_only_heads_are_enough() -> None:
    heads = random_heads(6)
    for head in heads:
        head.flags.writeable = False
    assert_same(detect(heads), reference(heads))


@pytest.mark.parametrize("extreme", [90.0, 1e4, 1e30, math.inf])
def test_extreme_logits_give_finite_boxes_without_a_warning(extreme: float) -> None:
    heads = no_heads(-extreme)
    put(heads, 0, 1, 1, 0, [extreme, -extreme, extreme, -extreme, extreme, -extreme, extreme, 0])
    found = detect(heads)
    assert found.class_id.tolist() == [1]
    assert found.confidence.tolist() == [1.0]
    assert np.isfinite(found.xyxy).all()


def test_heads_of_another_number_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 3 heads"):
        HEAD.select(random_heads(0)[:2], 0.25)
    with pytest.raises(ValueError, match="6 arrays and 0 convolutions"):
        HEAD.select(random_heads(0) * 2, 0.25)


@given(st.integers(0, 2**32), st.floats(0.001, 0.9), st.integers(1, 40))
def test_heads_in_two_parts_give_the_predictions_of_whole_ones(
    seed: int, threshold: float, channels: int
) -> None:
    random = np.random.default_rng(seed)
    whole, parts, convolutions = [], [], []
    for head in random_heads(0):
        features = random.normal(0, 1, (*head.shape[:2], channels)).astype(np.float32)
        weight = random.normal(0, 1, (3, LAYOUT.num_values, channels)).astype(np.float32)
        bias = random.normal(0, 1, (3, LAYOUT.num_values)).astype(np.float32)
        predictions = np.einsum("rcf,avf->rcav", features, weight) + bias
        whole.append(predictions.reshape(head.shape).astype(np.float32))
        parts += [np.ascontiguousarray(predictions[..., 4]), features]
        convolutions.append(HeadConvolution(weight, bias))
    expected = HEAD.select(whole, threshold)
    found = YOLOv5Head(LAYOUT, tuple(convolutions)).select(parts, threshold)
    assert (found is None) == (expected is None)
    if found is not None and expected is not None:
        np.testing.assert_allclose(found.values, expected.values, atol=1e-4)
        np.testing.assert_array_equal(found.place, expected.place)


def one_box_after_the_other(
    xyxy: NDArray[np.float32], class_id: NDArray[np.int64], iou_threshold: float, most: int
) -> list[int]:
    """NMS with the very arithmetic of `class_aware_nms`, for one pair at a time."""
    spacing = float(xyxy.max() - xyxy.min() + np.float32(1.0))
    boxes = xyxy.astype(np.float64) + (class_id * np.float32(spacing))[:, None]
    kept: list[int] = []
    for i, (left, top, right, bottom) in enumerate(boxes.tolist()):
        area = (right - left) * (bottom - top)
        for j in kept:
            x0, y0, x1, y1 = boxes[j].tolist()
            width = max(0.0, min(right, x1) - max(left, x0))
            height = max(0.0, min(bottom, y1) - max(top, y0))
            union = area + (x1 - x0) * (y1 - y0) - width * height
            if width * height > iou_threshold * union:
                break
        else:
            kept.append(i)
    return kept[:most]


@given(st.integers(0, 2**32), st.integers(1, 400), st.floats(0.1, 0.9), st.integers(1, 400))
def test_nms_in_blocks_keeps_what_one_pair_after_the_other_does(
    seed: int, number: int, iou_threshold: float, most: int
) -> None:
    random = np.random.default_rng(seed)
    corners = random.uniform(0, 300, (number, 2))
    xyxy = np.hstack([corners, corners + random.uniform(1, 200, (number, 2))]).astype(np.float32)
    class_id = random.integers(0, 4, number)
    found = class_aware_nms(xyxy, class_id, iou_threshold, most)
    assert found.tolist() == one_box_after_the_other(xyxy, class_id, iou_threshold, most)


@given(st.integers(0, 2**32), st.floats(0.01, 0.9), st.booleans())
def test_what_is_left_out_early_could_not_have_passed(
    seed: int, threshold: float, multi_label: bool
) -> None:
    heads = random_heads(seed, spread=2.0)
    found = detect(heads, confidence_threshold=threshold, multi_label=multi_label, iou_threshold=1)
    expected = reference(
        heads, confidence_threshold=threshold, multi_label=multi_label, iou_threshold=1
    )
    sure = [box for box in expected if box.confidence > threshold + 1e-6]
    assert len(sure) <= len(found) <= len(expected) + 1
    np.testing.assert_allclose(
        found.confidence[: len(sure)], [box.confidence for box in sure], rtol=1e-4
    )


def test_a_box_with_negative_sides_suppresses_none() -> None:
    boxes = np.array([[50, 10, 10, 90], [0, 0, 20, 20], [30, 30, 60, 60]], np.float32)
    assert class_aware_nms(boxes, np.zeros(3, np.int64), 0.45, 10).tolist() == [0, 1, 2]
