"""OpenVINO graph surgery: any YOLOv5 graph -> uint8 NHWC in, three raw NHWC heads out."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import Layout, Node, Output, Type
from openvino.opset4 import swish
from openvino.preprocess import PrePostProcessor

from pipeline.errors import ModelError
from pipeline.heads import STRIDES, HeadLayout

_RT_INFO_KEY = ["pipeline", "head_layout"]
_NUM_ANCHORS = 3


def has_stored_layout(model: ov.Model) -> bool:
    """Whether this is a graph that `finish` made."""
    return bool(model.has_rt_info(_RT_INFO_KEY))


def stored_layout(model: ov.Model, origin: Path) -> HeadLayout:
    """The head layout that `finish` left in a graph. Raises ModelError if it is not there."""
    try:
        return HeadLayout.from_json(model.get_rt_info(_RT_INFO_KEY).astype(str))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{origin}: its head layout cannot be read ({error})") from error


def cut_at_heads(model: ov.Model, origin: Path) -> tuple[ov.Model, HeadLayout]:
    """A graph exported by YOLOv5 itself -> the same graph ending at its raw heads.

    The heads are the last convolutions before the results. Anchors are not kept by the export,
    but its boxes are made from them: they are read off one inference, which at the same time
    proves that this is a YOLOv5 head. Raises ModelError if it is not.
    """
    if len(model.inputs) != 1 or model.input().partial_shape.rank != ov.Dimension(4):
        raise ModelError(f"{origin}: expected one image input (1, 3, height, width)")
    decoded = model.outputs[0]
    if decoded.partial_shape.rank != ov.Dimension(3):
        raise ModelError(
            f"{origin}: expected YOLOv5's output (1, boxes, 5 + classes), found "
            f"{decoded.partial_shape}; export it with YOLOv5's export.py, or give the .pt"
        )
    if any(output.partial_shape.rank == ov.Dimension(4) for output in model.outputs[1:]):
        raise ModelError(f"{origin}: has a second output, as a segmentation model; not supported")
    num_values = decoded.partial_shape[2]
    heads = _last_convolutions(decoded)
    if (
        num_values.is_dynamic
        or num_values.get_length() < 6
        or [head.partial_shape[1] for head in heads]
        != [_NUM_ANCHORS * num_values.get_length()] * len(STRIDES)
    ):
        raise ModelError(
            f"{origin}: not a YOLOv5 detection model: three heads of {_NUM_ANCHORS} x "
            f"(5 + classes) channels expected before its output {decoded.partial_shape}"
        )
    probe = ov.Model([*heads, decoded.get_node().input_value(0)], model.get_parameters(), "probe")
    order, anchors = _infer_anchors(probe.clone(), origin)
    names = _class_names(model, num_values.get_length() - 5)
    layout = HeadLayout(class_names=names, anchors_px=anchors)
    return ov.Model([heads[i] for i in order], model.get_parameters(), "yolov5"), layout


def finish(model: ov.Model, layout: HeadLayout, input_wh: tuple[int, int]) -> ov.Model:
    """Give a raw-head graph its final form for one input shape.

    In: uint8 (1, height, width, 3), RGB. Out: float32 (1, rows, columns, anchors * values)
    per stride. Every SiLU becomes one Swish, which the CPU then fuses into its convolution.
    Raises ModelError if the heads do not come out as the layout says.
    """
    width, height = input_wh
    if model.input().partial_shape.is_dynamic:
        model.reshape([1, 3, height, width])
    builder = PrePostProcessor(model)
    image = builder.input()
    image.tensor().set_element_type(Type.u8).set_layout(Layout("NHWC"))
    image.preprocess().convert_element_type(Type.f32).scale(255.0)
    image.model().set_layout(Layout("NCHW"))
    for i in range(len(model.outputs)):
        builder.output(i).model().set_layout(Layout("NCHW"))
        builder.output(i).tensor().set_layout(Layout("NHWC")).set_element_type(Type.f32)
    model = builder.build()
    _fuse_swish(model)
    check_heads(model, layout, input_wh)
    model.set_rt_info(layout.to_json(), _RT_INFO_KEY)
    return model


def fixed_input_wh(model: ov.Model) -> tuple[int, int] | None:
    """The input size of a graph that cannot be reshaped; None if it has no fixed one."""
    shape = model.input().partial_shape
    if shape.is_dynamic:
        return None
    _, *hw = shape.to_shape() if shape[1] == 3 else (0, *shape.to_shape()[:3])
    return int(hw[-1]), int(hw[-2])


def check_heads(model: ov.Model, layout: HeadLayout, input_wh: tuple[int, int]) -> None:
    """Raise ModelError unless a finished graph's outputs are the heads of the layout."""
    channels = layout.num_anchors * layout.num_values
    expected = [
        [1, input_wh[1] // stride, input_wh[0] // stride, channels] for stride in layout.strides
    ]
    found = [list(output.partial_shape.get_max_shape()) for output in model.outputs]
    if found != expected:
        raise ModelError(f"not YOLOv5's heads: expected shapes {expected}, found {found}")


def _fuse_swish(model: ov.Model) -> None:
    """x * sigmoid(x), as ONNX writes SiLU, -> Swish(x)."""
    for product in model.get_ordered_ops():
        if product.get_type_name() != "Multiply":
            continue
        a, b = product.input_value(0), product.input_value(1)
        for x, gate in ((a, b), (b, a)):
            if gate.get_node().get_type_name() == "Sigmoid" and gate.get_node().input_value(0) == x:
                fused = swish(x)
                fused.set_friendly_name(product.get_friendly_name())
                product.output(0).replace(fused.output(0))
                break


def _last_convolutions(result: Output) -> list[Output]:
    """The convolutions (with their bias, if any) behind a result with no other in between."""
    found: dict[str, Output] = {}
    waiting, seen = [result.get_node()], set()
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() in seen:
            continue
        seen.add(node.get_friendly_name())
        if _is_convolution(node):
            found[node.get_friendly_name()] = node.output(0)
            continue
        waiting.extend(value.get_node() for value in node.input_values())
    return list(found.values())


def _is_convolution(node: Node) -> bool:
    if node.get_type_name() == "Convolution":
        return True
    inputs = [value.get_node() for value in node.input_values()]
    return (
        node.get_type_name() == "Add"
        and any(entry.get_type_name() == "Convolution" for entry in inputs)
        and any(_is_made_of_a_constant(entry) for entry in inputs)
    )


def _is_made_of_a_constant(node: Node) -> bool:
    """A constant, or one that was reshaped or converted."""
    while node.get_type_name() in ("Reshape", "Convert", "Unsqueeze"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")


def _infer_anchors(
    probe: ov.Model, origin: Path
) -> tuple[list[int], tuple[tuple[tuple[float, float], ...], ...]]:
    """Solve YOLOv5's size equation, size = (2 sigmoid(t))^2 anchor, on real outputs.

    Returns the order of the heads by stride, and the anchors of each in that order.
    """
    if probe.input().partial_shape.is_dynamic:
        probe.reshape([1, 3, 320, 320])
    compiled = ov.compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    image = np.random.default_rng(0).random(tuple(compiled.input().shape), np.float32)
    *heads, decoded = (
        np.asarray(value, np.float32)
        for value in compiled([image.astype(compiled.input().element_type.to_dtype())]).values()
    )
    order = sorted(range(len(heads)), key=lambda i: -heads[i].shape[2])
    strides = tuple(image.shape[2] // heads[i].shape[2] for i in order)
    counts = [heads[i].size // decoded.shape[2] for i in order]
    if strides != STRIDES or sum(counts) != decoded.shape[1]:
        raise ModelError(f"{origin}: expected heads at strides {STRIDES}, found {strides}")
    anchors = []
    for i, boxes in zip(order, np.split(decoded[0], np.cumsum(counts)[:-1]), strict=True):
        ratio = _size_over_anchor(heads[i][0])
        sizes = boxes[:, 2:4].reshape(_NUM_ANCHORS, -1, 2)
        estimates = sizes / ratio
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


def _class_names(model: ov.Model, num_classes: int) -> tuple[str, ...]:
    """The names that YOLOv5's export leaves as metadata; numbers where it left none."""
    key = ["framework", "names"]
    if model.has_rt_info(key):
        try:
            names = ast.literal_eval(model.get_rt_info(key).astype(str))
        except (ValueError, SyntaxError):
            names = None
        if isinstance(names, dict) and len(names) == num_classes:
            return tuple(str(name) for name in names.values())
    return tuple(str(i) for i in range(num_classes))
