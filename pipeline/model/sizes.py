"""Sizes of one picture that an export left inside a graph -> sizes that follow from the input."""

from __future__ import annotations

import numpy as np
import openvino as ov
from numpy.typing import NDArray
from openvino import Node, Output, Type
from openvino import opset13 as ops


def without_sizes(model: ov.Model) -> ov.Model:
    """Change the graph so that its attention layers take feature maps of every size.

    They reshape (1, channels, rows, columns) into (..., rows * columns) and back; an export for
    one size has these numbers as constants. A reshape that is neither stays as it is.
    """
    if model.input().partial_shape.is_dynamic:
        return model
    for reshape in model.get_ordered_ops():
        if reshape.get_type_name() != "Reshape":
            continue
        target = reshape.input_value(1).get_node()
        if target.get_type_name() == "Constant" and reshape.output(0).partial_shape.is_static:
            shape = _shape_of_any_size(reshape, target.get_data())
            if shape is not None:
                reshape.input(1).replace_source_output(shape)
    return model


def _shape_of_any_size(reshape: Node, target: NDArray[np.int64]) -> Output | None:
    """The target of a reshape, made of the size of the feature map that it comes from."""
    feature_map = _feature_map(reshape.input_value(0))
    if feature_map is None or (target < 0).any():
        return None
    rows, columns = list(feature_map.shape)[2:]
    if list(feature_map.shape) == list(reshape.output(0).shape):
        return ops.shape_of(feature_map, "i64").output(0)
    numbers = target.tolist()
    size_hw = ops.gather(
        ops.shape_of(feature_map, "i64"), np.array([2, 3], np.int64), np.array(0, np.int64)
    )
    for i in range(1, len(numbers) - 1):
        if numbers[i : i + 2] == [rows, columns]:
            parts = (_constant(numbers[:i]), size_hw, _constant(numbers[i + 2 :]))
            return ops.concat([part for part in parts if part.shape != [0]], 0).output(0)
    # Rows and columns as one number, or a part of it: what is left when all others are known.
    cells = rows * columns
    likely = [i for i, number in enumerate(numbers) if number > 1 and cells % number == 0]
    largest = max((numbers[i] for i in likely), default=0)
    if [numbers[i] for i in likely].count(largest) != 1 or largest * 16 < cells:
        return None
    numbers[numbers.index(largest)] = -1
    return _constant(numbers).output(0)


def _feature_map(value: Output) -> Output | None:
    """The nearest (1, channels, rows, columns) behind a value, in the direction of its data."""
    for _ in range(100):
        node = value.get_node()
        if node.get_type_name() in ("Convolution", "GroupConvolution"):
            return value
        inputs = [v for v in node.input_values() if v.get_node().get_type_name() != "Constant"]
        if not inputs:
            return None
        value = inputs[0]
    return None


def _constant(numbers: list[int]) -> Node:
    return ops.constant(np.array(numbers, np.int64), Type.i64)
