"""Graph surgery for YOLOv8 and later: an exported graph -> one that ends at its raw heads."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import PartialShape

from pipeline.core.errors import ModelError
from pipeline.model.anchor_free import AnchorFreeHead, AnchorFreeLayout
from pipeline.model.compiled import Compiled, compile_for
from pipeline.model.graph import from_pictures, to_channels_last
from pipeline.model.last_layers import last_convolutions
from pipeline.model.metadata import Metadata
from pipeline.model.sizes import without_sizes

_PROBE_SIDE = 320
_MOST_COMPARED = 50
_MOST_LEVELS = 5
_SCORE_TOLERANCE, _LEAST_SAME, _LEAST_CONFIDENCE = 0.02, 0.99, 1e-30


def finish(
    model: ov.Model, layout: AnchorFreeLayout, input_wh: tuple[int, int]
) -> tuple[ov.Model, AnchorFreeHead]:
    """Give a raw-head graph its final form for one input shape, see `graph.from_pictures`.

    Out, per stride: float32 logits of the classes (1, rows, columns, classes) and the box (1, rows,
    columns, 4 * bins). Raises ModelError if the heads do not come out as the layout says.
    """
    model = to_channels_last(from_pictures(model, input_wh))
    check_heads(model, layout, input_wh)
    return model, AnchorFreeHead(layout)


def check_heads(model: ov.Model, layout: AnchorFreeLayout, input_wh: tuple[int, int]) -> None:
    """Raise ModelError unless a finished graph's outputs are the heads of the layout."""
    found = [list(output.partial_shape.get_max_shape()) for output in model.outputs]
    if found != (expected := layout.shapes(input_wh)):
        raise ModelError(f"not the heads of its layout: expected {expected}, found {found}")


def cut_at_heads(model: ov.Model, metadata: Metadata) -> tuple[ov.Model, AnchorFreeLayout] | None:
    """A graph exported by ultralytics -> the same graph ending at its raw heads, or None.

    The heads are the last convolutions before the result, two for each level. One inference shows
    which of them is which, and proves that the decoding of the graph is that of this family. The
    graph then takes pictures of every size, if nothing else in it depends on the size.
    """
    decoded = model.outputs[0]
    heads = last_convolutions(decoded)
    if len(model.outputs) != 1 or len(heads) % 2 or not 2 <= len(heads) // 2 <= _MOST_LEVELS:
        return None
    result = decoded.get_node().input_value(0)
    probe = ov.Model([*heads, result], model.get_parameters(), "probe").clone()
    (*raw, boxes), input_hw = _probe(probe)
    is_final = boxes.ndim == 3 and boxes.shape[2] == 6
    has_nms = any("NonMaxSuppression" in op.get_type_name() for op in model.get_ops())
    for order in _orders(raw):
        ordered = [raw[i] for i in order]
        layout = _layout(ordered, input_hw, metadata, needs_nms=has_nms or not is_final)
        if layout is None:
            continue
        if is_final and not (boxes[0, :, 4] > 0).any():  # NMS left nothing of a random picture.
            is_so = metadata.class_names == layout.class_names
        elif is_final:
            is_so = _are_final_boxes(layout, ordered, boxes[0])
        else:
            is_so = boxes.ndim == 3 and _are_decoded(layout, ordered, boxes[0].T)
        if is_so:
            cut = ov.Model([heads[i] for i in order], model.get_parameters(), "yolo")
            return _of_any_size(cut, layout), layout
    return None


def _probe(probe: ov.Model) -> tuple[list[NDArray[np.float32]], tuple[int, int]]:
    """Outputs for a random picture, and its height and width."""
    if probe.input().partial_shape.is_dynamic:
        probe.reshape([1, 3, _PROBE_SIDE, _PROBE_SIDE])
    shape = tuple(probe.input().shape)
    image = np.random.default_rng(0).random(shape, np.float32)
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    with Compiled(lambda: compile_for(probe, "CPU", config)) as compiled:
        outputs = compiled.infer(image.astype(probe.input().element_type.to_dtype()))
    return [np.asarray(output, np.float32) for output in outputs], (shape[2], shape[3])


def _orders(raw: Sequence[NDArray[np.float32]]) -> Iterator[list[int]]:
    """The orders in which the outputs can be classes and box of each level, the finest first.

    Only where there are as many classes as values of a box, there are several.
    """
    by_size = sorted(range(len(raw)), key=lambda i: -raw[i].shape[2])
    levels = [tuple(by_size[i : i + 2]) for i in range(0, len(by_size), 2)]
    if any(raw[i].shape[2:] != raw[j].shape[2:] for i, j in levels):
        return
    for swaps in itertools.product((False, True), repeat=len(levels)):
        order = [i for pair, swap in zip(levels, swaps, strict=True) for i in pair[:: 1 - 2 * swap]]
        num_classes, num_distances = (
            {raw[i].shape[1] for i in order[first::2]} for first in (0, 1)
        )
        if len(num_classes) == len(num_distances) == 1 and num_distances.pop() % 4 == 0:
            yield order


def _layout(
    ordered: Sequence[NDArray[np.float32]],
    input_hw: tuple[int, int],
    metadata: Metadata,
    *,
    needs_nms: bool,
) -> AnchorFreeLayout | None:
    strides = tuple(input_hw[0] // logits.shape[2] for logits in ordered[::2])
    layout = AnchorFreeLayout(
        class_names=metadata.names_for(ordered[0].shape[1]),
        strides=strides,
        num_bins=ordered[1].shape[1] // 4,
        needs_nms=needs_nms,
    )
    shapes = [[1, *output.shape[2:], output.shape[1]] for output in ordered]
    return layout if layout.shapes(input_hw[::-1]) == shapes else None


def _are_decoded(
    layout: AnchorFreeLayout,
    ordered: Sequence[NDArray[np.float32]],
    decoded: NDArray[np.float32],
) -> bool:
    """Whether the graph makes of its raw heads the boxes that a head of this layout makes.

    decoded: (boxes, 4 + classes), centre, size and probabilities.
    """
    xyxy, scores = _all_boxes(layout, ordered)
    if decoded.shape != (len(xyxy), 4 + layout.num_classes):
        return False
    centre, half = decoded[:, :2], decoded[:, 2:4] / 2
    theirs = np.concatenate((centre - half, centre + half), axis=1)
    same = (np.abs(theirs - xyxy) < _tolerance_px(layout)).all(axis=1)
    same &= (np.abs(decoded[:, 4:] - scores) < _SCORE_TOLERANCE).all(axis=1)
    return bool(same.mean() > _LEAST_SAME)


def _are_final_boxes(
    layout: AnchorFreeLayout,
    ordered: Sequence[NDArray[np.float32]],
    final: NDArray[np.float32],
) -> bool:
    """Whether the graph's final boxes (boxes, 6) are among those of a head of this layout."""
    xyxy, scores = _all_boxes(layout, ordered)
    rows = final[final[:, 4] > 0][:_MOST_COMPARED]
    if not ((rows[:, 5] >= 0) & (rows[:, 5] < layout.num_classes)).all():
        return False
    found = [
        (np.abs(scores[same, int(row[5])] - row[4]) < _SCORE_TOLERANCE).any()
        for row in rows
        for same in [(np.abs(xyxy - row[:4]) < _tolerance_px(layout)).all(axis=1)]
    ]
    return bool(np.mean(found) > _LEAST_SAME)


def _all_boxes(
    layout: AnchorFreeLayout, ordered: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The boxes of all cells and their class scores; none if values are not finite."""
    head = AnchorFreeHead(layout)
    candidates = head.select([raw[0].transpose(1, 2, 0) for raw in ordered], _LEAST_CONFIDENCE)
    if candidates is None or not np.isfinite(candidates.values).all():
        return np.empty((0, 4), np.float32), np.empty((0, layout.num_classes), np.float32)
    return head.decode(candidates), head.class_scores(candidates)


def _tolerance_px(layout: AnchorFreeLayout) -> float:
    """Little to another equation, much to the rounding of a graph in INT8."""
    return 0.25 * min(layout.strides)


def _of_any_size(model: ov.Model, layout: AnchorFreeLayout) -> ov.Model:
    """The graph for pictures of every size, if it can be had; else as it is."""
    free = without_sizes(model.clone())
    side = max(layout.strides)
    try:
        free.reshape(PartialShape([1, 3, -1, -1]))
        for width, height in ((3 * side, 2 * side), (2 * side, 3 * side)):
            trial = free.clone()
            trial.reshape([1, 3, height, width])
            found = [list(output.shape) for output in trial.outputs]
            if found != [[n, c, h, w] for n, h, w, c in layout.shapes((width, height))]:
                return model
    except RuntimeError:
        return model
    return free
