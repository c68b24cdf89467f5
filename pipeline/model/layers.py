"""The layers of a checkpoint -> an OpenVINO graph, without PyTorch and without ONNX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from openvino import Output, PartialShape, Type
from openvino import opset13 as ops

from pipeline.core.errors import ModelError, reason_of
from pipeline.model.checkpoint import MOST_CHANNELS, layers_in_order, one_line, read_checkpoint
from pipeline.model.pickle_machine import Layer
from pipeline.model.stored_tensors import Array, Refused
from pipeline.model.yolov5 import HeadLayout

_PROBE_SIDE = 64
_MOST_STEPS = 20_000
_LARGEST_SETTING = 64


def build_graph(checkpoint: Path) -> tuple[ov.Model, HeadLayout]:
    """The graph from float NCHW images, RGB in 0..1, to the raw heads, of any size and batch.

    Every batch normalisation is folded into its convolution. Raises ModelError if the checkpoint
    is refused or its layers do not fit each other.
    """
    model, layout = read_checkpoint(checkpoint)
    try:
        return _Builder().build(model), layout
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

    def build(self, model: Layer) -> ov.Model:
        image = ops.parameter([1, 3, _PROBE_SIDE, _PROBE_SIDE], Type.f32, name="images")
        image.output(0).set_names({"images"})
        outputs: list[Any] = []
        value: Any = image.output(0)
        for layer in layers_in_order(model.children["model"]):
            source = layer.settings["f"]
            if isinstance(source, list):
                value = [value if j == -1 else outputs[j] for j in source]
            elif source != -1:
                value = outputs[source]
            value = self._apply(layer, value)
            outputs.append(value)
        graph = ov.Model(list(value), [image], "yolov5")
        graph.reshape(PartialShape([-1, 3, -1, -1]))
        return graph

    def _apply(self, layer: Layer, value: Any) -> Any:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise Refused(f"its layers take more than {_MOST_STEPS} steps")
        if layer.tensors:
            if id(layer) in self._seen:
                raise Refused(f"a {_short(layer)} of it is used in two places")
            self._seen.add(id(layer))
        step = _STEPS.get(layer.kind)
        if step is None:
            raise Refused(f"a {_short(layer)} of it is where none belongs")
        made = step(self, layer, value)
        for output in made if isinstance(made, list) else [made]:
            _require_sane_shape(output)
        return made

    def conv(self, layer: Layer, x: Output) -> Output:
        """Convolution, batch normalisation, SiLU."""
        bn = layer.children.get("bn")
        y = self.convolution(layer.children["conv"], x, bn)
        return self._apply(layer.children["act"], y)

    def convolution(self, layer: Layer, x: Output, bn: Layer | None = None) -> Output:
        weight = layer.tensors["weight"]
        if weight.ndim != 4 or 0 in weight.shape or weight.dtype != np.float32:
            raise Refused(f"a Conv2d of it has weights of the shape {list(weight.shape)}")
        if layer.settings.get("groups", 1) != 1 or layer.settings.get("padding_mode") not in (
            None,
            "zeros",
        ):
            raise Refused("a Conv2d of it has groups or a padding that YOLOv5 has not")
        bias = layer.tensors.get("bias")
        if bn is not None:
            weight, bias = _folded(weight, bias, bn)
        stride, padding, dilation = (
            _pair(layer, name, least)
            for name, least in (("stride", 1), ("padding", 0), ("dilation", 1))
        )
        _pair(layer, "kernel_size", 1)
        if max(weight.shape[2:]) > _LARGEST_SETTING:
            raise Refused(f"a Conv2d of it has weights of the shape {list(weight.shape)}")
        y = ops.convolution(x, weight, stride, padding, padding, dilation)
        if bias is not None:
            y = ops.add(y, bias.reshape(1, weight.shape[0], 1, 1))
        return y.output(0)

    def bottleneck(self, layer: Layer, x: Output) -> Output:
        y = self._apply(layer.children["cv2"], self._apply(layer.children["cv1"], x))
        return ops.add(x, y).output(0) if layer.settings.get("add") else y

    def c3(self, layer: Layer, x: Output) -> Output:
        cv1, cv2, cv3, m = (layer.children[name] for name in ("cv1", "cv2", "cv3", "m"))
        parts = [self._apply(m, self._apply(cv1, x)), self._apply(cv2, x)]
        return self._apply(cv3, _joined(parts))

    def sppf(self, layer: Layer, x: Output) -> Output:
        parts = [self._apply(layer.children["cv1"], x)]
        for _ in range(3):
            parts.append(self._apply(layer.children["m"], parts[-1]))
        return self._apply(layer.children["cv2"], _joined(parts))

    def max_pool(self, layer: Layer, x: Output) -> Output:
        kernel, stride, padding, dilation = (
            _pair(layer, name, least)
            for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1))
        )
        if layer.settings.get("ceil_mode") or layer.settings.get("return_indices"):
            raise Refused("a MaxPool2d of it is of a kind that YOLOv5 has not")
        return ops.max_pool(x, stride, dilation, padding, padding, kernel).output(0)

    def upsample(self, layer: Layer, x: Output) -> Output:
        scale, mode = layer.settings.get("scale_factor"), layer.settings.get("mode")
        if layer.settings.get("size") is not None or mode != "nearest" or scale not in (1, 2, 4, 8):
            raise Refused(f"an Upsample of it has a factor of {scale!r:.50} and mode {mode!r:.50}")
        return ops.interpolate(
            x,
            np.array([float(scale)] * 2, np.float32),
            "nearest",
            "scales",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
            axes=np.array([2, 3]),
        ).output(0)

    def concat(self, layer: Layer, x: list[Output]) -> Output:
        if layer.settings.get("d") != 1:
            raise Refused("a Concat of it joins other things than channels")
        return _joined(x)

    def silu(self, _: Layer, x: Output) -> Output:
        return ops.swish(x).output(0)

    def sequential(self, layer: Layer, x: Output) -> Output:
        for child in layers_in_order(layer):
            x = self._apply(child, x)
        return x

    def detect(self, layer: Layer, features: list[Output]) -> list[Output]:
        heads = layers_in_order(layer.children["m"])
        return [self._apply(head, x) for head, x in zip(heads, features, strict=True)]


_STEPS: Mapping[str, Callable[[_Builder, Layer, Any], Any]] = {
    "models.yolo.Detect": _Builder.detect,
    "models.common.Conv": _Builder.conv,
    "models.common.C3": _Builder.c3,
    "models.common.SPPF": _Builder.sppf,
    "models.common.Bottleneck": _Builder.bottleneck,
    "models.common.Concat": _Builder.concat,
    "torch.nn.modules.conv.Conv2d": _Builder.convolution,
    "torch.nn.modules.pooling.MaxPool2d": _Builder.max_pool,
    "torch.nn.modules.container.Sequential": _Builder.sequential,
    "torch.nn.modules.activation.SiLU": _Builder.silu,
    "torch.nn.modules.upsampling.Upsample": _Builder.upsample,
}


def _joined(parts: list[Output]) -> Output:
    return ops.concat(parts, 1).output(0)


def _folded(weight: Array, bias: Array | None, bn: Layer) -> tuple[Array, Array]:
    """Weights and bias of a convolution that does what its batch normalisation did, too."""
    names = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, variance = (bn.tensors[name] for name in names)
    scale = gamma / np.sqrt(variance + np.float32(bn.settings["eps"]))
    shift = mean if bias is None else mean - bias
    if scale.shape != weight.shape[:1] or shift.shape != scale.shape or beta.shape != scale.shape:
        raise Refused("a BatchNorm2d of it does not fit its convolution")
    return weight * scale[:, None, None, None], beta - shift * scale


def _pair(layer: Layer, name: str, least: int) -> list[int]:
    """A setting for rows and columns."""
    value: Any = layer.settings[name]
    pair = list(value) if isinstance(value, tuple | list) else [value, value]
    if len(pair) != 2 or not all(
        type(number) is int and least <= number <= _LARGEST_SETTING for number in pair
    ):
        raise Refused(f"a {_short(layer)} of it has a {name} of {value!r:.50}")
    return pair


def _require_sane_shape(output: Output) -> None:
    """Raise Refused for a value larger than any of YOLOv5 for a picture of the probe's size."""
    shape = list(output.shape)
    if len(shape) != 4 or shape[1] > MOST_CHANNELS or max(shape[2:]) > _PROBE_SIDE:
        raise Refused(f"a layer of it makes {shape} of a picture of {_PROBE_SIDE}x{_PROBE_SIDE}")


def _short(layer: Layer) -> str:
    return layer.kind.rpartition(".")[2]
