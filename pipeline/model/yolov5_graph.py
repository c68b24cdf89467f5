"""OpenVINO graph surgery for YOLOv5: any of its graphs -> one that ends at its raw heads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import Output
from openvino import opset13 as ops

from pipeline.core.errors import ModelError
from pipeline.model.compiled import Compiled, compile_for
from pipeline.model.found import unknown
from pipeline.model.graph import from_pictures, to_channels_last
from pipeline.model.last_layers import last_convolutions
from pipeline.model.metadata import Metadata
from pipeline.model.yolov5 import STRIDES, HeadConvolution, HeadLayout, YOLOv5Head

OBJECTNESS = "objectness"
"""The prefix of the names of convolutions that must keep their accuracy."""

_NUM_ANCHORS = 3


def finish(
    model: ov.Model, layout: HeadLayout, input_wh: tuple[int, int]
) -> tuple[ov.Model, YOLOv5Head]:
    """Give a raw-head graph its final form for one input shape, see `graph.from_pictures`.

    Out, per stride: float32 objectness (1, rows, columns, anchors) and features (1, rows, columns,
    channels), and in the head the convolutions that make all else of them. Of a few thousand cells
    a few pass the threshold: for all of them, the rest takes 5 to 7% of the model's time. Heads
    that are not 1x1 convolutions come out whole, (1, rows, columns, anchors * values), and then
    the head has no convolutions. Raises ModelError if the heads do not come out as the layout says.
    """
    model, convolutions = _split_heads(from_pictures(model, input_wh), layout)
    model = to_channels_last(model)
    check_heads(model, layout, input_wh)
    return model, YOLOv5Head(layout, convolutions)


def cut_at_heads(model: ov.Model, metadata: Metadata, origin: Path) -> tuple[ov.Model, HeadLayout]:
    """A graph exported by YOLOv5 itself -> the same graph ending at its raw heads.

    The heads are the last convolutions before the results. Anchors are not kept by the export,
    but its boxes are made from them: they are read off one inference, which at the same time
    proves that this is a YOLOv5 head. Raises ModelError if it is not.
    """
    decoded = model.outputs[0]
    if decoded.partial_shape.rank != ov.Dimension(3):
        raise unknown(model, origin)
    num_values = decoded.partial_shape[2]
    heads = last_convolutions(decoded)
    if (
        num_values.is_dynamic
        or num_values.get_length() < 6
        or len(heads) not in STRIDES
        or any(head.partial_shape[1] != _NUM_ANCHORS * num_values.get_length() for head in heads)
    ):
        raise unknown(model, origin)
    probe = ov.Model([*heads, decoded.get_node().input_value(0)], model.get_parameters(), "probe")
    order, anchors_px = _infer_anchors(probe.clone(), origin)
    names = metadata.names_for(num_values.get_length() - 5)
    layout = HeadLayout(class_names=names, anchors_px=anchors_px, strides=STRIDES[len(order)])
    return ov.Model([heads[i] for i in order], model.get_parameters(), "yolov5"), layout


def has_split_heads(model: ov.Model, layout: HeadLayout) -> bool:
    """Whether objectness and features come out apart."""
    return len(model.outputs) > len(layout.strides)


def check_heads(model: ov.Model, layout: HeadLayout, input_wh: tuple[int, int]) -> None:
    """Raise ModelError unless a finished graph's outputs are the heads of the layout."""
    split = has_split_heads(model, layout)
    channels = layout.num_anchors * (1 if split else layout.num_values)
    outputs = model.outputs[::2] if split else model.outputs
    expected = [
        [1, input_wh[1] // stride, input_wh[0] // stride, channels] for stride in layout.strides
    ]
    found = [list(output.partial_shape.get_max_shape()) for output in outputs]
    if found != expected:
        raise ModelError(f"not YOLOv5's heads: expected shapes {expected}, found {found}")


def _split_heads(
    model: ov.Model, layout: HeadLayout
) -> tuple[ov.Model, tuple[HeadConvolution, ...]]:
    """Outputs of whole heads -> the objectness and the features that a head is made of."""
    outputs: list[Output] = []
    convolutions: list[HeadConvolution] = []
    shape = (layout.num_anchors, layout.num_values)
    for stride, result in zip(layout.strides, model.get_results(), strict=True):
        parts = _pointwise_convolution(result.input_value(0))
        if parts is None or parts[1].shape[0] != shape[0] * shape[1]:
            return model, ()
        features, weight, bias = parts
        convolution = HeadConvolution(weight.reshape(*shape, -1), bias.reshape(shape))
        convolutions.append(convolution)
        objectness = ops.convolution(
            features, convolution.weight[:, 4, :, None, None], [1, 1], [0, 0], [0, 0], [1, 1]
        )
        objectness.set_friendly_name(f"{OBJECTNESS}_{stride}")
        outputs.append(ops.add(objectness, convolution.bias[:, 4][None, :, None, None]).output(0))
        outputs.append(features)
    return ov.Model(outputs, model.get_parameters(), model.get_friendly_name()), tuple(convolutions)


def _pointwise_convolution(
    head: Output,
) -> tuple[Output, NDArray[np.float32], NDArray[np.float32]] | None:
    """What a head is made of: features, weights (out, in), biases; None if not by a 1x1 one."""
    add = head.get_node()
    if add.get_type_name() != "Add":
        return None
    conv, bias = (value.get_node() for value in add.input_values())
    if conv.get_type_name() != "Convolution" or bias.get_type_name() != "Constant":
        return None
    features, weight = conv.input_values()
    if weight.get_node().get_type_name() != "Constant" or list(weight.shape)[2:] != [1, 1]:
        return None
    values = weight.get_node().get_data().astype(np.float32)
    return features, values[:, :, 0, 0], bias.get_data().astype(np.float32).reshape(-1)


def _infer_anchors(
    probe: ov.Model, origin: Path
) -> tuple[list[int], tuple[tuple[tuple[float, float], ...], ...]]:
    """Solve YOLOv5's size equation, size = (2 sigmoid(t))^2 anchor, on real outputs.

    Returns the order of the heads by stride, and the anchors of each in that order.
    """
    if probe.input().partial_shape.is_dynamic:
        probe.reshape([1, 3, 320, 320])
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    image = np.random.default_rng(0).random(tuple(probe.input().shape), np.float32)
    with Compiled(lambda: compile_for(probe, "CPU", config)) as compiled:
        outputs = compiled.infer(image.astype(probe.input().element_type.to_dtype()))
    *heads, decoded = (np.asarray(value, np.float32) for value in outputs)
    order = sorted(range(len(heads)), key=lambda i: -heads[i].shape[2])
    strides = tuple(image.shape[2] // heads[i].shape[2] for i in order)
    counts = [heads[i].size // decoded.shape[2] for i in order]
    if strides != STRIDES[len(heads)] or sum(counts) != decoded.shape[1]:
        raise ModelError(
            f"{origin}: expected heads at strides {STRIDES[len(heads)]}, found {strides}"
        )
    anchors = []
    for i, boxes in zip(order, np.split(decoded[0], np.cumsum(counts)[:-1]), strict=True):
        sizes = boxes[:, 2:4].reshape(_NUM_ANCHORS, -1, 2)
        with np.errstate(all="ignore"):  # What is not finite follows no equation.
            estimates = sizes / _size_over_anchor(heads[i][0])
            anchor = np.median(estimates, axis=1)
        if not np.allclose(estimates, anchor[:, None], rtol=0.02, atol=0.05):
            raise ModelError(f"{origin}: its boxes do not follow YOLOv5's equations")
        anchors.append(tuple((round(float(w), 3), round(float(h), 3)) for w, h in anchor))
    return order, tuple(anchors)


def _size_over_anchor(head: NDArray[np.float32]) -> NDArray[np.float32]:
    """(anchors * values, rows, columns) logits -> (anchors, cells, 2) of (2 sigmoid(t))^2."""
    t = head.reshape(_NUM_ANCHORS, -1, head.shape[1] * head.shape[2])[:, 2:4].transpose(0, 2, 1)
    ratio: NDArray[np.float32] = (2.0 / (1.0 + np.exp(-t))) ** 2
    return ratio
