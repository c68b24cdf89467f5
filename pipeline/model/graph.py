"""OpenVINO graph surgery: any YOLOv5 graph -> uint8 NHWC in, three NHWC heads out."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import Layout, Node, Output, Type
from openvino import opset13 as ops
from openvino.passes import ConstantFolding, Manager
from openvino.preprocess import PrePostProcessor

from pipeline.core.errors import ModelError, reason_of
from pipeline.model.compiled import Compiled, compile_for
from pipeline.model.heads import STRIDES, HeadConvolution, HeadLayout

_RT_INFO_KEY = ["pipeline", "head_layout"]
OBJECTNESS = "objectness"
"""The prefix of the names of convolutions that must keep their accuracy."""

_NUM_ANCHORS = 3
_MOST_NUMBERS = 1 << 28
_NHWC_TO_NCHW = np.array([0, 3, 1, 2])


def has_stored_layout(model: ov.Model) -> bool:
    """Whether `finish` made this graph."""
    return bool(model.has_rt_info(_RT_INFO_KEY))


def stored_layout(model: ov.Model, origin: Path) -> HeadLayout:
    """The head layout that `finish` stored in a graph. Raises ModelError if there is none."""
    try:
        return HeadLayout.from_json(model.get_rt_info(_RT_INFO_KEY).astype(str))
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{origin}: its head layout cannot be read ({error})") from error


def require_sane_shapes(model: ov.Model, origin: Path) -> None:
    """Raise ModelError for a graph with a value larger than any of YOLOv5, before it is made."""
    for operation in model.get_ops():
        for output in operation.outputs():
            shape = output.partial_shape
            if shape.is_static and math.prod(shape.to_shape()) > _MOST_NUMBERS:
                raise ModelError(f"{origin}: refused: a value in it has the shape {shape}")


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
        raise ModelError(
            f"{origin}: has a second output, like a segmentation model, which is not supported"
        )
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


def finish(
    model: ov.Model, layout: HeadLayout, input_wh: tuple[int, int]
) -> tuple[ov.Model, tuple[HeadConvolution, ...]]:
    """Give a raw-head graph its final form for one input shape.

    In: uint8 (1, height, width, 3), RGB; `with_batch` makes it more than one. Out, per stride:
    float32 objectness (1, rows, columns, anchors) and features (1, rows, columns, channels), and
    beside the graph the convolutions that make all else of them. Of a few thousand cells a few
    pass the threshold: for all of them, the rest takes 5 to 7% of the model's time. Heads that
    are not 1x1 convolutions come out whole, (1, rows, columns, anchors * values), and then no
    convolutions are returned. Every SiLU becomes one Swish, which the CPU then fuses into its
    convolution. Raises ModelError if the heads do not come out as the layout says.
    """
    width, height = input_wh
    # First: sizes that follow from the input's must not become constants.
    _fold_constants(model)
    if model.input().partial_shape.is_dynamic:
        model.reshape([1, 3, height, width])
    model = _with_picture_input(model, input_wh)
    model, convolutions = _split_heads(model, layout)
    builder = PrePostProcessor(model)
    for i in range(len(model.outputs)):
        builder.output(i).model().set_layout(Layout("NCHW"))
        builder.output(i).tensor().set_layout(Layout("NHWC")).set_element_type(Type.f32)
    model = builder.build()
    _fuse_swish(model)
    check_heads(model, layout, input_wh)
    model.set_rt_info(layout.to_json(), _RT_INFO_KEY)
    return model, convolutions


def fixed_input_wh(model: ov.Model) -> tuple[int, int] | None:
    """The input size of a graph that cannot be reshaped; None if it has no fixed one."""
    shape = model.input().partial_shape
    if shape.is_dynamic:
        return None
    _, *hw = shape.to_shape() if shape[1] == 3 else (0, *shape.to_shape()[:3])
    return int(hw[-1]), int(hw[-2])


def has_split_heads(model: ov.Model) -> bool:
    """Whether objectness and features come out apart."""
    return len(model.outputs) > len(STRIDES)


def check_heads(model: ov.Model, layout: HeadLayout, input_wh: tuple[int, int]) -> None:
    """Raise ModelError unless a finished graph's outputs are the heads of the layout."""
    split = has_split_heads(model)
    channels = layout.num_anchors * (1 if split else layout.num_values)
    outputs = model.outputs[::2] if split else model.outputs
    expected = [
        [1, input_wh[1] // stride, input_wh[0] // stride, channels] for stride in layout.strides
    ]
    found = [list(output.partial_shape.get_max_shape()) for output in outputs]
    if found != expected:
        raise ModelError(f"not YOLOv5's heads: expected shapes {expected}, found {found}")


def with_batch(model: ov.Model, batch: int) -> ov.Model:
    """A finished graph for several pictures at a time: its first dimensions become batch.

    Raises ModelError for a graph that has sizes for one picture inside.
    """
    return reshaped(model, [batch, *model.input().shape[1:]])


def reshaped(model: ov.Model, input_shape: Sequence[int]) -> ov.Model:
    """A copy of a finished graph for another input shape. Raises ModelError if it has none."""
    copy = model.clone()
    try:
        copy.reshape(list(input_shape))
    except RuntimeError as error:
        raise ModelError(
            f"the model cannot be reshaped to an input of {list(input_shape)}: it was exported "
            f"with fixed sizes inside ({reason_of(error)})"
        ) from error
    return copy


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


def _with_picture_input(model: ov.Model, input_wh: tuple[int, int]) -> ov.Model:
    """uint8 NHWC pictures in place of float NCHW ones in 0..1."""
    width, height = input_wh
    old = model.get_parameters()[0]
    consumers = list(old.output(0).get_target_inputs())
    picture = ops.parameter([1, height, width, 3], Type.u8, name="images")
    picture.output(0).set_names({"images"})
    picture.set_layout(Layout("NHWC"))
    first = consumers[0].get_node()
    if len(consumers) == 1 and _pairs_columns(first, width):
        first.output(0).replace(_convolution_on_pairs(picture, first, input_wh))
    else:
        scaled = ops.multiply(ops.convert(picture, Type.f32), np.float32(1 / 255))
        old.output(0).replace(ops.transpose(scaled, _NHWC_TO_NCHW).output(0))
    return ov.Model(model.get_results(), [picture], model.get_friendly_name())


def _pairs_columns(node: Node, width: int) -> bool:
    """Whether a convolution can read its picture in pairs of columns instead."""
    if node.get_type_name() != "Convolution" or width % 2:
        return False
    about = node.get_attributes()
    weights = node.input_value(1).get_node()
    return bool(
        weights.get_type_name() == "Constant"
        and about["auto_pad"] == "explicit"
        and about["strides"][1] == 2
        and about["pads_begin"][1] % 2 == 0
        and about["dilations"] == [1, 1]
    )


def _convolution_on_pairs(picture: Node, conv: Node, input_wh: tuple[int, int]) -> Output:
    """The first convolution, of stride 2, as one of stride 1 over pairs of columns.

    Two columns of 3 channels lie in memory as one column of 6. Read so, the CPU takes the picture
    as it is, where it otherwise transposes it twice, and multiplies 6 channels at a time instead
    of 3. The scale 1/255 goes into the weights: what is left, 0 to 255, is exact in bf16 and
    in INT8.
    """
    width, _ = input_wh
    about = conv.get_attributes()
    weights = conv.input_value(1).get_node().get_data().astype(np.float32) / np.float32(255)
    if weights.shape[3] % 2:
        weights = np.pad(weights, ((0, 0), (0, 0), (0, 0), (0, 1)))
    out, channels, rows, columns = weights.shape
    # (out, channel, row, pair, column of the pair) -> (out, column of the pair and channel, ...)
    paired = weights.reshape(out, channels, rows, columns // 2, 2).transpose(0, 4, 1, 2, 3)
    pads_begin = [about["pads_begin"][0], about["pads_begin"][1] // 2]
    out_width = conv.output(0).shape[3]
    pad_right = out_width - 1 + columns // 2 - width // 2 - pads_begin[1]
    # 0 keeps a dimension as it is, so that the batch can still be changed.
    pairs = ops.reshape(picture, np.array([0, 0, -1, 6]), special_zero=True)
    result = ops.convolution(
        ops.transpose(ops.convert(pairs, Type.f32), _NHWC_TO_NCHW),
        paired.reshape(out, 2 * channels, rows, columns // 2),
        [about["strides"][0], 1],
        pads_begin,
        [about["pads_end"][0], pad_right],
        [1, 1],
    )
    result.set_friendly_name(conv.get_friendly_name())
    return result.output(0)


def _fold_constants(model: ov.Model) -> None:
    """Weights and biases as plain constants, however the importer wrote them."""
    passes = Manager()
    passes.register_pass(ConstantFolding())
    passes.run_passes(model)


def _fuse_swish(model: ov.Model) -> None:
    """x * sigmoid(x), as ONNX writes SiLU, -> Swish(x)."""
    for product in model.get_ordered_ops():
        if product.get_type_name() != "Multiply":
            continue
        a, b = product.input_value(0), product.input_value(1)
        for x, gate in ((a, b), (b, a)):
            if gate.get_node().get_type_name() == "Sigmoid" and gate.get_node().input_value(0) == x:
                fused = ops.swish(x)
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
    config = {"INFERENCE_PRECISION_HINT": "f32"}
    image = np.random.default_rng(0).random(tuple(probe.input().shape), np.float32)
    with Compiled(lambda: compile_for(probe, "CPU", config)) as compiled:
        outputs = compiled.infer(image.astype(probe.input().element_type.to_dtype()))
    *heads, decoded = (np.asarray(value, np.float32) for value in outputs)
    order = sorted(range(len(heads)), key=lambda i: -heads[i].shape[2])
    strides = tuple(image.shape[2] // heads[i].shape[2] for i in order)
    counts = [heads[i].size // decoded.shape[2] for i in order]
    if strides != STRIDES or sum(counts) != decoded.shape[1]:
        raise ModelError(f"{origin}: expected heads at strides {STRIDES}, found {strides}")
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
