"""The blocks of the YOLO families as OpenVINO operations, each by the name of its class.

A block is given `apply`, which makes the operations of a layer in it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from openvino import Output
from openvino import opset13 as ops

from pipeline.model.convolutions import (
    LARGEST_SETTING,
    Apply,
    Block,
    conv,
    conv2d,
    layers_in_order,
    number,
    pair,
    rep_conv,
    summed,
)
from pipeline.model.pickle_machine import Layer
from pipeline.model.stored_tensors import Refused


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
    "Conv": conv,
    "DWConv": conv,
    "Conv2d": conv2d,
    "RepConv": rep_conv,
    "RepVGGDW": summed("conv", "conv1"),
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
