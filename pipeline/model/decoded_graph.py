"""Graphs of YOLOv8 and later that cannot be cut at their raw heads: they run as they are."""

from __future__ import annotations

import openvino as ov
from openvino import Type
from openvino.preprocess import PrePostProcessor

from pipeline.core.errors import ModelError
from pipeline.model.decoded import DecodedHead, DecodedLayout
from pipeline.model.graph import from_pictures, with_fused_activations
from pipeline.model.metadata import Metadata

_LARGEST_STRIDE = 32
_FINAL_VALUES = 6


def layout_of(model: ov.Model, metadata: Metadata) -> DecodedLayout | None:
    """The layout of a graph that ultralytics exported with its classes; None for any other."""
    names, shape = metadata.class_names, model.outputs[0].partial_shape
    if not names or len(model.outputs) != 1 or shape.rank != ov.Dimension(3):
        return None
    is_final = shape[2] == ov.Dimension(_FINAL_VALUES)
    if not is_final and shape[1] != ov.Dimension(4 + len(names)):
        return None
    # The sides of the input are multiples of the largest stride.
    return DecodedLayout(names, (metadata.stride or _LARGEST_STRIDE,), is_final)


def finish(
    model: ov.Model, layout: DecodedLayout, input_wh: tuple[int, int]
) -> tuple[ov.Model, DecodedHead]:
    """Give a decoding graph its final form for one input shape, see `graph.from_pictures`.

    Out: float32, see `DecodedLayout`. Raises ModelError if the output is not that of the layout.
    """
    builder = PrePostProcessor(from_pictures(model, input_wh))
    builder.output(0).tensor().set_element_type(Type.f32)
    model = with_fused_activations(builder.build())
    check_output(model, layout)
    return model, DecodedHead(layout)


def check_output(model: ov.Model, layout: DecodedLayout) -> None:
    """Raise ModelError unless the output of a finished graph is that of the layout."""
    shape = model.outputs[0].partial_shape
    axis, values = (2, _FINAL_VALUES) if layout.is_final else (1, 4 + len(layout.class_names))
    if shape.rank != ov.Dimension(3) or shape[axis] != ov.Dimension(values):
        raise ModelError(f"not the boxes of its layout: {values} values expected, found {shape}")
