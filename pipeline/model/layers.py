"""The layers of a checkpoint -> an OpenVINO graph, without PyTorch and without ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import openvino as ov
from openvino import Output, PartialShape, Type
from openvino import opset13 as ops

from pipeline.core.errors import ModelError, reason_of
from pipeline.model.anchor_free import AnchorFreeLayout
from pipeline.model.blocks import BLOCKS
from pipeline.model.checkpoint import (
    DETECT,
    LAYERS,
    MOST_CHANNELS,
    CheckpointLayout,
    branches,
    one_line,
    read_checkpoint,
)
from pipeline.model.convolutions import layers_in_order, short
from pipeline.model.pickle_machine import Layer
from pipeline.model.stored_tensors import Refused

_PROBE_SIDE = 64
_MOST_STEPS = 20_000


def build_graph(checkpoint: Path, *, nms_free: bool = False) -> tuple[ov.Model, CheckpointLayout]:
    """The graph from float NCHW images, RGB in 0..1, to the raw heads, of any size and batch.

    Every batch normalisation is folded into its convolution. nms_free: see `read_checkpoint`.
    Raises ModelError if the checkpoint is refused or its layers do not fit each other.
    """
    model, layout = read_checkpoint(checkpoint, nms_free=nms_free)
    try:
        return _Builder().build(model, layout), layout
    except Refused as error:
        raise ModelError(f"{checkpoint}: refused: {error}") from error
    except RuntimeError as error:  # OpenVINO's, of shapes that do not fit.
        raise ModelError(f"{checkpoint}: its layers cannot be run ({reason_of(error)})") from error
    except Exception as error:  # Layers of a crafted or odd checkpoint fail in any way.
        raise ModelError(f"{checkpoint}: its layers cannot be run ({one_line(error)})") from error


class _Builder:
    """Makes the graph for a picture of the probe's size, so that every size is checked on the way.

    Nothing is computed and no memory is taken for a value. The graph then takes any size: nothing
    in it depends on the probe's.
    """

    def __init__(self) -> None:
        self._steps = 0
        self._seen: set[int] = set()

    def build(self, model: Layer, layout: CheckpointLayout) -> ov.Model:
        image = ops.parameter([1, 3, _PROBE_SIDE, _PROBE_SIDE], Type.f32, name="images")
        image.output(0).set_names({"images"})
        outputs: list[Any] = []
        value: Any = image.output(0)
        *body, detect = layers_in_order(model.children["model"])
        for layer in body:
            value = self._apply(layer, _sources(layer, value, outputs))
            outputs.append(value)
        features = _sources(detect, value, outputs)
        if isinstance(layout, AnchorFreeLayout):
            heads = self._anchor_free_heads(detect, features, layout)
        else:
            heads = [self._apply(*pair) for pair in zip(_heads(detect), features, strict=True)]
        graph = ov.Model(heads, [image], "yolo")
        graph.reshape(PartialShape([-1, 3, -1, -1]))
        return graph

    def _anchor_free_heads(
        self, detect: Layer, features: list[Output], layout: AnchorFreeLayout
    ) -> list[Output]:
        heads = [
            self._apply(branch, x)
            for *of_level, x in zip(*branches(detect), features, strict=True)
            for branch in of_level
        ]
        expected = [[n, c, h, w] for n, h, w, c in layout.shapes((_PROBE_SIDE, _PROBE_SIDE))]
        if (found := [list(head.shape) for head in heads]) != expected:
            raise Refused(f"its heads have the shapes {found}, not {expected}")
        return heads

    def _apply(self, layer: Layer, value: Any) -> Any:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise Refused(f"its layers take more than {_MOST_STEPS} steps")
        if layer.tensors:
            if id(layer) in self._seen:
                raise Refused(f"a {short(layer)} of it is used in two places")
            self._seen.add(id(layer))
        block = BLOCKS.get(short(layer)) if layer.kind in LAYERS else None
        if block is None:
            raise Refused(f"a {short(layer)} of it is where none belongs")
        made: Output = block(self._apply, layer, value)
        _require_sane_shape(made)
        return made


def _sources(layer: Layer, value: Any, outputs: list[Any]) -> Any:
    """What a layer is applied to: the value before it, or those that it names."""
    source = layer.settings["f"]
    if isinstance(source, list):
        return [value if j == -1 else outputs[j] for j in source]
    return value if source == -1 else outputs[source]


def _heads(detect: Layer) -> list[Layer]:
    if detect.kind != DETECT:
        raise Refused(f"a {short(detect)} of it is where none belongs")
    return layers_in_order(detect.children["m"])


def _require_sane_shape(output: Output) -> None:
    """Raise Refused for a value larger than any of YOLO for a picture of the probe's size."""
    shape = list(output.shape)
    if len(shape) != 4 or shape[1] > MOST_CHANNELS or max(shape[2:]) > _PROBE_SIDE:
        raise Refused(f"a layer of it makes {shape} of a picture of {_PROBE_SIDE}x{_PROBE_SIDE}")
