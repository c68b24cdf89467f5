"""The blocks of the YOLO families as OpenVINO operations, each by the name of its class.

A block is given `apply`, which makes the operations of a layer in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def _conv2d(_: Apply, layer: Layer, x: Output) -> Output:
    return convolution(layer, x, layer.tensors["weight"], layer.tensors.get("bias"))


def _conv(apply: Apply, layer: Layer, x: Output) -> Output:
    """Convolution, batch normalisation, SiLU."""
    y = convolution(layer.children["conv"], x, *folded(layer))
    return apply(layer.children["act"], y)


def _summed(first: str, second: str) -> Block:
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


def _rep_conv(apply: Apply, layer: Layer, x: Output) -> Output:
    if "bn" in layer.children:
        raise Refused("a RepConv of it has a third branch")
    if "conv" in layer.children:  # Its branches were joined before it was saved.
        return apply(layer.children["act"], apply(layer.children["conv"], x))
    return _summed("conv1", "conv2")(apply, layer, x)


def _bottleneck(apply: Apply, layer: Layer, x: Output) -> Output:
    y = apply(layer.children["cv2"], apply(layer.children["cv1"], x))
    return _sum(x, y) if layer.settings.get("add") else y


def _cib(apply: Apply, layer: Layer, x: Output) -> Output:
    y = apply(layer.children["cv1"], x)
    return _sum(x, y) if layer.settings.get("add") else y


def _c3(apply: Apply, layer: Layer, x: Output) -> Output:
    cv1, cv2, cv3, m = (layer.children[name] for name in ("cv1", "cv2", "cv3", "m"))
    return apply(cv3, _joined([apply(m, apply(cv1, x)), apply(cv2, x)]))


def _c2(apply: Apply, layer: Layer, x: Output) -> Output:
    first, second = _halves(apply(layer.children["cv1"], x))
    return apply(layer.children["cv2"], _joined([apply(layer.children["m"], first), second]))


def _c2f(apply: Apply, layer: Layer, x: Output) -> Output:
    parts = _halves(apply(layer.children["cv1"], x))
    for child in layers_in_order(layer.children["m"]):
        parts.append(apply(child, parts[-1]))
    return apply(layer.children["cv2"], _joined(parts))


def _rep_elan(apply: Apply, layer: Layer, x: Output) -> Output:
    parts = _halves(apply(layer.children["cv1"], x))
    for name in ("cv2", "cv3"):
        parts.append(apply(layer.children[name], parts[-1]))
    return apply(layer.children["cv4"], _joined(parts))


def _sppf(apply: Apply, layer: Layer, x: Output) -> Output:
    parts = [apply(layer.children["cv1"], x)]
    for _ in range(min(number(layer, "n", default=3), LARGEST_SETTING)):
        parts.append(apply(layer.children["m"], parts[-1]))
    y = apply(layer.children["cv2"], _joined(parts))
    return _sum(x, y) if layer.settings.get("add") else y


def _sppelan(apply: Apply, layer: Layer, x: Output) -> Output:
    parts = [apply(layer.children["cv1"], x)]
    for name in ("cv2", "cv3", "cv4"):
        parts.append(apply(layer.children[name], parts[-1]))
    return apply(layer.children["cv5"], _joined(parts))


def _aconv(apply: Apply, layer: Layer, x: Output) -> Output:
    return apply(layer.children["cv1"], _mean_of_neighbours(x))


def _adown(apply: Apply, layer: Layer, x: Output) -> Output:
    first, second = _halves(_mean_of_neighbours(x))
    largest = ops.max_pool(second, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3]).output(0)
    return _joined([apply(layer.children["cv1"], first), apply(layer.children["cv2"], largest)])


def _scdown(apply: Apply, layer: Layer, x: Output) -> Output:
    return apply(layer.children["cv2"], apply(layer.children["cv1"], x))


def _attention(apply: Apply, layer: Layer, x: Output) -> Output:
    heads, key, head = (number(layer, name) for name in ("num_heads", "key_dim", "head_dim"))
    qkv = apply(layer.children["qkv"], x)
    by_head = ops.reshape(qkv, np.array([0, heads, 2 * key + head, -1]), special_zero=True)
    split = ops.variadic_split(by_head, np.array(2), np.array([key, key, head]))
    q, k, v = split.outputs()
    y, v_map = (_as_map(value, x) for value in (_attended(q, k, v, key), v))
    return apply(layer.children["proj"], _sum(y, apply(layer.children["pe"], v_map)))


def _area_attention(apply: Apply, layer: Layer, x: Output) -> Output:
    """Attention within each of some areas of equal size, which are stretches of rows."""
    heads, head, area = (number(layer, name) for name in ("num_heads", "head_dim", "area"))
    qkv = apply(layer.children["qkv"], x)
    by_area = ops.reshape(qkv, np.array([0, heads, 3 * head, area, -1]), special_zero=True)
    order = np.array([0, 3, 1, 2, 4])
    split = ops.variadic_split(ops.transpose(by_area, order), np.array(3), np.array([head] * 3))
    q, k, v = split.outputs()
    back = np.array([0, 2, 3, 1, 4])
    y, v_map = (
        _as_map(ops.transpose(value, back).output(0), x) for value in (_attended(q, k, v, head), v)
    )
    return apply(layer.children["proj"], _sum(y, apply(layer.children["pe"], v_map)))


def _attended(q: Output, k: Output, v: Output, key_dim: int) -> Output:
    """Each (..., values, cells): v, weighted by how well k fits q."""
    scaled = ops.multiply(q, np.float32(key_dim**-0.5))
    weight = ops.softmax(ops.matmul(scaled, k, True, False), -1)
    return ops.matmul(v, weight, False, True).output(0)


def _as_map(value: Output, like: Output) -> Output:
    return ops.reshape(value, ops.shape_of(like, "i64"), special_zero=False).output(0)


def _psa_block(apply: Apply, layer: Layer, x: Output) -> Output:
    for name in ("attn", "ffn"):
        y = apply(layer.children[name], x)
        x = _sum(x, y) if layer.settings.get("add") else y
    return x


def _psa(apply: Apply, layer: Layer, x: Output) -> Output:
    first, second = _halves(apply(layer.children["cv1"], x))
    for name in ("attn", "ffn"):
        second = _sum(second, apply(layer.children[name], second))
    return apply(layer.children["cv2"], _joined([first, second]))


def _c2psa(apply: Apply, layer: Layer, x: Output) -> Output:
    first, second = _halves(apply(layer.children["cv1"], x))
    return apply(layer.children["cv2"], _joined([first, apply(layer.children["m"], second)]))


def _ablock(apply: Apply, layer: Layer, x: Output) -> Output:
    for name in ("attn", "mlp"):
        x = _sum(x, apply(layer.children[name], x))
    return x


def _a2c2f(apply: Apply, layer: Layer, x: Output) -> Output:
    parts = [apply(layer.children["cv1"], x)]
    for child in layers_in_order(layer.children["m"]):
        parts.append(apply(child, parts[-1]))
    y = apply(layer.children["cv2"], _joined(parts))
    gamma = layer.tensors.get("gamma")
    if gamma is None:
        return y
    return _sum(x, ops.multiply(y, gamma.reshape(1, -1, 1, 1)).output(0))


def _max_pool(_: Apply, layer: Layer, x: Output) -> Output:
    kernel, stride, padding, dilation = (
        pair(layer, name, least)
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1))
    )
    if layer.settings.get("ceil_mode") or layer.settings.get("return_indices"):
        raise Refused("a MaxPool2d of it is of a kind that YOLO has not")
    return ops.max_pool(x, stride, dilation, padding, padding, kernel).output(0)


def _upsample(_: Apply, layer: Layer, x: Output) -> Output:
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


def _concat(_: Apply, layer: Layer, x: list[Output]) -> Output:
    if layer.settings.get("d") != 1:
        raise Refused("a Concat of it joins other things than channels")
    return _joined(x)


def _sequential(apply: Apply, layer: Layer, x: Output) -> Output:
    for child in layers_in_order(layer):
        x = apply(child, x)
    return x


def _halves(x: Output) -> list[Output]:
    """Both halves of the channels."""
    return list(ops.split(x, np.array(1), 2).outputs())


def _mean_of_neighbours(x: Output) -> Output:
    return ops.avg_pool(x, [1, 1], [0, 0], [0, 0], [2, 2], True).output(0)


def _joined(parts: list[Output]) -> Output:
    return ops.concat(parts, 1).output(0)


def _sum(a: Output, b: Output) -> Output:
    return ops.add(a, b).output(0)


BLOCKS: Mapping[str, Block] = {
    "Conv": _conv,
    "DWConv": _conv,
    "Conv2d": _conv2d,
    "RepConv": _rep_conv,
    "RepVGGDW": _summed("conv", "conv1"),
    **dict.fromkeys(("Bottleneck", "RepBottleneck"), _bottleneck),
    "CIB": _cib,
    **dict.fromkeys(("C3", "C3k", "RepCSP"), _c3),
    "C2": _c2,
    **dict.fromkeys(("C2f", "C3k2", "C2fCIB"), _c2f),
    **dict.fromkeys(("RepNCSPELAN4", "ELAN1"), _rep_elan),
    "SPPF": _sppf,
    "SPPELAN": _sppelan,
    "AConv": _aconv,
    "ADown": _adown,
    "SCDown": _scdown,
    "Attention": _attention,
    "AAttn": _area_attention,
    "PSABlock": _psa_block,
    "PSA": _psa,
    "C2PSA": _c2psa,
    "ABlock": _ablock,
    "A2C2f": _a2c2f,
    "MaxPool2d": _max_pool,
    "Upsample": _upsample,
    "Concat": _concat,
    "Sequential": _sequential,
    "SiLU": lambda _, __, x: ops.swish(x).output(0),
    "Identity": lambda _, __, x: x,
}
