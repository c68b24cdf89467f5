"""The last layers of a graph that was exported with its decoding: where its raw heads are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
from openvino import Node, Output

from pipeline.core.errors import ModelError


def require_one_picture_input(model: ov.Model, origin: Path) -> None:
    """Raise ModelError for a graph of another input than pictures."""
    if len(model.inputs) != 1 or model.input().partial_shape.rank != ov.Dimension(4):
        raise ModelError(f"{origin}: expected one image input (1, 3, height, width)")


def last_convolutions(result: Output) -> list[Output]:
    """The convolutions (with their bias, if any) behind a result with no other in between.

    The convolution that makes distances of their distribution counts as decoding.
    """
    found: dict[str, Output] = {}
    waiting, seen = [result.get_node()], set()
    while waiting:
        node = waiting.pop()
        if node.get_friendly_name() in seen:
            continue
        seen.add(node.get_friendly_name())
        if _is_convolution(node):
            found[node.get_friendly_name()] = node.output(0)
        elif node.get_type_name() != "ShapeOf":  # Of which the centres of the cells are made.
            waiting.extend(value.get_node() for value in node.input_values())
    return list(found.values())


def convolutions_before(result: Output, depth: int) -> set[str]:
    """The names of the convolutions that a result is made of, the last `depth` on every way."""
    start = result.get_node()
    found, waiting, passed = set[str](), [start], {start.get_friendly_name(): 0}
    while waiting:
        node = waiting.pop()
        number = passed[node.get_friendly_name()]
        if node.get_type_name() in ("Convolution", "GroupConvolution"):
            found.add(node.get_friendly_name())
            number += 1
        if number < depth:
            for entry in (value.get_node() for value in node.input_values()):
                # A shorter way to it may be found later.
                if number < passed.get(entry.get_friendly_name(), depth):
                    passed[entry.get_friendly_name()] = number
                    waiting.append(entry)
    return found


def _is_convolution(node: Node) -> bool:
    if node.get_type_name() == "Convolution":
        return not _is_expectation(node)
    inputs = [value.get_node() for value in node.input_values()]
    return (
        node.get_type_name() == "Add"
        and any(entry.get_type_name() == "Convolution" for entry in inputs)
        and any(_is_made_of_a_constant(entry) for entry in inputs)
    )


def _is_expectation(convolution: Node) -> bool:
    """Whether its weights are 0, 1, 2, ...: the distances whose probabilities are its input."""
    weights = convolution.input_value(1).get_node()
    if weights.get_type_name() != "Constant" or list(weights.shape)[:1] != [1]:
        return False
    values = weights.get_data().reshape(-1)
    return bool(len(values) > 1 and np.array_equal(values, np.arange(len(values))))


def _is_made_of_a_constant(node: Node) -> bool:
    """A constant, or one that was reshaped or converted."""
    while node.get_type_name() in ("Reshape", "Convert", "Unsqueeze"):
        node = node.input_value(0).get_node()
    return bool(node.get_type_name() == "Constant")
