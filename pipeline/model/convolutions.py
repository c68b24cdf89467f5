"""Convolutions and what belongs to them as OpenVINO operations; what settings of layers say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from openvino import Output
from openvino import opset13 as ops

from pipeline.model.pickle_machine import Layer
from pipeline.model.stored_tensors import Array, Refused

LARGEST_SETTING = 64
_LARGEST_WIDTH = 8192

Apply = Callable[[Layer, Any], Any]
Block = Callable[[Apply, Layer, Any], Any]


def layers_in_order(layer: Layer) -> list[Layer]:
    """The layers in a Sequential or ModuleList."""
    return list(layer.children.values())


def convolution(layer: Layer, x: Output, weight: Array, bias: Array | None) -> Output:
    """A Conv2d with other weights, or its own."""
    if weight.ndim != 4 or 0 in weight.shape or weight.dtype != np.float32:
        raise Refused(f"a Conv2d of it has weights of the shape {list(weight.shape)}")
    if layer.settings.get("padding_mode") not in (None, "zeros"):
        raise Refused("a Conv2d of it has a padding that YOLO has not")
    stride, padding, dilation = (
        pair(layer, name, least) for name, least in (("stride", 1), ("padding", 0), ("dilation", 1))
    )
    pair(layer, "kernel_size", 1)
    if max(weight.shape[2:]) > LARGEST_SETTING:
        raise Refused(f"a Conv2d of it has weights of the shape {list(weight.shape)}")
    groups = number(layer, "groups", default=1)
    if groups == 1:
        y = ops.convolution(x, weight, stride, padding, padding, dilation)
    elif len(weight) % groups == 0:
        grouped = weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
        y = ops.group_convolution(x, grouped, stride, padding, padding, dilation)
    else:
        raise Refused(f"a Conv2d of it has {len(weight)} outputs in {groups} groups")
    if bias is not None:
        y = ops.add(y, bias.reshape(1, len(weight), 1, 1))
    return y.output(0)


def folded(conv: Layer) -> tuple[Array, Array | None]:
    """Weights and bias of a Conv that do what its batch normalisation did, too."""
    weight, bias = (conv.children["conv"].tensors.get(name) for name in ("weight", "bias"))
    bn = conv.children.get("bn")
    if weight is None or weight.ndim != 4:
        raise Refused("a Conv2d of it has no weights")
    if bn is None:
        return weight, bias
    names = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, variance = (bn.tensors[name] for name in names)
    scale = gamma / np.sqrt(variance + np.float32(bn.settings["eps"]))
    shift = mean if bias is None else mean - bias
    if scale.shape != weight.shape[:1] or shift.shape != scale.shape or beta.shape != scale.shape:
        raise Refused("a BatchNorm2d of it does not fit its convolution")
    return weight * scale[:, None, None, None], beta - shift * scale


def pair(layer: Layer, name: str, least: int) -> list[int]:
    """A setting for rows and columns."""
    value: Any = layer.settings[name]
    both = list(value) if isinstance(value, tuple | list) else [value, value]
    if len(both) != 2 or not all(
        type(entry) is int and least <= entry <= LARGEST_SETTING for entry in both
    ):
        raise Refused(f"a {short(layer)} of it has a {name} of {value!r:.50}")
    return both


def number(layer: Layer, name: str, *, default: int | None = None) -> int:
    """A setting that is a positive number."""
    value: Any = layer.settings.get(name, default)
    if type(value) is not int or not 1 <= value <= _LARGEST_WIDTH:
        raise Refused(f"a {short(layer)} of it has a {name} of {value!r:.50}")
    return value


def short(layer: Layer) -> str:
    """The name of its class, without the module."""
    return layer.kind.rpartition(".")[2]


def conv2d(_: Apply, layer: Layer, x: Output) -> Output:
    return convolution(layer, x, layer.tensors["weight"], layer.tensors.get("bias"))


def conv(apply: Apply, layer: Layer, x: Output) -> Output:
    """Convolution, batch normalisation, SiLU."""
    y = convolution(layer.children["conv"], x, *folded(layer))
    return apply(layer.children["act"], y)


def summed(first: str, second: str) -> Block:
    """Two convolutions of the same value, as one: the second has a smaller kernel."""

    def block(apply: Apply, layer: Layer, x: Output) -> Output:
        large = layer.children[first]
        weight, bias = folded(large)
        if (small := layer.children.get(second)) is not None:
            other, other_bias = folded(small)
            margins = np.subtract(weight.shape, other.shape)
            if margins[:2].any() or (margins % 2).any() or margins.min() < 0:
                raise Refused(f"the branches of a {short(layer)} of it do not fit each other")
            if bias is None or other_bias is None:
                raise Refused(f"a {short(layer)} of it has no batch normalisation")
            weight = weight + np.pad(other, [(margin // 2, margin // 2) for margin in margins])
            bias = bias + other_bias
        y = convolution(large.children["conv"], x, weight, bias)
        return apply(layer.children["act"], y)

    return block


def rep_conv(apply: Apply, layer: Layer, x: Output) -> Output:
    if "bn" in layer.children:
        raise Refused("a RepConv of it has a third branch")
    if "conv" in layer.children:  # Its branches were joined before it was saved.
        return apply(layer.children["act"], apply(layer.children["conv"], x))
    return summed("conv1", "conv2")(apply, layer, x)
