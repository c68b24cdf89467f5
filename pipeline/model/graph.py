"""OpenVINO graph surgery that every model needs: uint8 NHWC in, float32 NHWC out."""

from __future__ import annotations

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

_MOST_NUMBERS = 1 << 28
_NHWC_TO_NCHW = np.array([0, 3, 1, 2])


def require_sane_shapes(model: ov.Model, origin: Path) -> None:
    """Raise ModelError for a graph with a value larger than any of YOLOv5, before it is made."""
    for operation in model.get_ops():
        for output in operation.outputs():
            shape = output.partial_shape
            if shape.is_static and math.prod(shape.to_shape()) > _MOST_NUMBERS:
                raise ModelError(f"{origin}: refused: a value in it has the shape {shape}")


def from_pictures(model: ov.Model, input_wh: tuple[int, int]) -> ov.Model:
    """A graph of float NCHW images -> the same graph of pictures of one size.

    In: uint8 (1, height, width, 3), RGB; `with_batch` makes it more than one.
    """
    width, height = input_wh
    # First: sizes that follow from the input's must not become constants.
    _fold_constants(model)
    if model.input().partial_shape.is_dynamic:
        model.reshape([1, 3, height, width])
    return _with_picture_input(model, input_wh)


def to_channels_last(model: ov.Model) -> ov.Model:
    """Outputs as float32 NHWC, and activations fused."""
    builder = PrePostProcessor(model)
    for i in range(len(model.outputs)):
        builder.output(i).model().set_layout(Layout("NCHW"))
        builder.output(i).tensor().set_layout(Layout("NHWC")).set_element_type(Type.f32)
    return with_fused_activations(builder.build())


def fixed_input_wh(model: ov.Model) -> tuple[int, int] | None:
    """The input size of a graph that cannot be reshaped; None if it has no fixed one."""
    shape = model.input().partial_shape
    if shape.is_dynamic:
        return None
    _, *hw = shape.to_shape() if shape[1] == 3 else (0, *shape.to_shape()[:3])
    return int(hw[-1]), int(hw[-2])


def is_quantized(model: ov.Model) -> bool:
    """Whether it is in INT8."""
    return any(operation.get_type_name() == "FakeQuantize" for operation in model.get_ops())


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


def _with_picture_input(model: ov.Model, input_wh: tuple[int, int]) -> ov.Model:
    """uint8 NHWC pictures in place of float NCHW ones in 0..1."""
    width, height = input_wh
    old = model.get_parameters()[0]
    consumers = _consumers(old)
    if len(consumers) == 1 and _keeps_every_level(consumers[0]):
        consumers = _consumers(consumers[0])
    picture = ops.parameter([1, height, width, 3], Type.u8, name="images")
    picture.output(0).set_names({"images"})
    picture.set_layout(Layout("NHWC"))
    first = consumers[0]
    if len(consumers) == 1 and _pairs_columns(first, width):
        first.output(0).replace(_convolution_on_pairs(picture, first, input_wh))
    else:
        scaled = ops.multiply(ops.convert(picture, Type.f32), np.float32(1 / 255))
        old.output(0).replace(ops.transpose(scaled, _NHWC_TO_NCHW).output(0))
    return ov.Model(model.get_results(), [picture], model.get_friendly_name())


def _consumers(node: Node) -> list[Node]:
    return [entry.get_node() for entry in node.output(0).get_target_inputs()]


def _keeps_every_level(node: Node) -> bool:
    """Whether it quantises 0..1 in steps of 1/255, which pictures have already."""
    if node.get_type_name() != "FakeQuantize" or node.get_attributes()["levels"] != 256:
        return False
    limits = [node.input_value(i).get_node() for i in range(1, 5)]
    return all(
        limit.get_type_name() == "Constant" and (limit.get_data() == number).all()
        for limit, number in zip(limits, (0, 1, 0, 1), strict=True)
    )


def _pairs_columns(node: Node, width: int) -> bool:
    """Whether a convolution can read its picture in pairs of columns instead."""
    if node.get_type_name() != "Convolution" or width % 2:
        return False
    about = node.get_attributes()
    return bool(
        _constant(node.input_value(1)) is not None
        and about["auto_pad"] == "explicit"
        and about["strides"][1] == 2
        and about["pads_begin"][1] % 2 == 0
        and about["dilations"] == [1, 1]
    )


def _constant(value: Output) -> NDArray[np.float32] | None:
    """A constant, or one that is kept as scaled integers; None for all else."""
    node = value.get_node()
    kind = node.get_type_name()
    if kind == "Constant":
        return np.asarray(node.get_data(), np.float32)
    if kind not in ("Convert", "Multiply", "Subtract"):
        return None
    parts = [_constant(entry) for entry in node.input_values()]
    if any(part is None for part in parts):
        return None
    if kind == "Convert":
        return parts[0]
    first, second = parts
    assert first is not None
    assert second is not None
    return first * second if kind == "Multiply" else first - second


def _convolution_on_pairs(picture: Node, conv: Node, input_wh: tuple[int, int]) -> Output:
    """The first convolution, of stride 2, as one of stride 1 over pairs of columns.

    Two columns of 3 channels lie in memory as one column of 6. Read so, the CPU takes the picture
    as it is, where it otherwise transposes it twice, and multiplies 6 channels at a time instead
    of 3. The scale 1/255 goes into the weights: what is left, 0 to 255, is exact in bf16 and
    in INT8.
    """
    width, _ = input_wh
    about = conv.get_attributes()
    weights = _constant(conv.input_value(1))
    assert weights is not None
    weights = weights / np.float32(255)
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


def with_fused_activations(model: ov.Model) -> ov.Model:
    """Change x * sigmoid(x), as ONNX writes SiLU, into Swish(x), which the CPU fuses."""
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
    return model
