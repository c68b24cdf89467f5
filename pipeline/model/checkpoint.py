"""Reads a YOLOv5 checkpoint without running anything that is in it.

Only the layers named below are known; whatever else a file asks for is refused. Its layers are then
taken through one picture without memory, so that sizes without sense are found before they hurt.
Importing this module imports torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pipeline.errors import ModelError
from pipeline.heads import STRIDES, HeadLayout
from pipeline.model.weights import cache_dir, require_size

# Ultralytics otherwise writes settings into the home folder, talks, and looks for a network.
os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_dir()))
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode
from ultralytics.nn.modules import C3, SPPF, Bottleneck, Concat, Conv

from pipeline.model.archive import Refused, read_archive


class Detect(nn.Module):
    """YOLOv5's detection layer up to its raw heads: one 1x1 convolution per stride."""

    m: nn.ModuleList
    anchors: torch.Tensor
    stride: torch.Tensor
    nc: int
    na: int
    nl: int

    def forward(self, features: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return tuple(conv(x) for conv, x in zip(self.m.children(), features, strict=True))


class YOLOv5(nn.Module):
    """The layers of a YOLOv5 checkpoint, each taking what its `f` names from those before.

    forward: float32 (N, 3, height, width), RGB in 0..1 -> three raw heads,
    float32 (N, anchors * (5 + classes), height / stride, width / stride).
    """

    model: nn.Sequential
    names: list[str] | dict[int, str]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        outputs: list[Any] = []
        value: Any = x
        for layer in self.model.children():
            if layer.f != -1:
                value = (
                    outputs[layer.f]
                    if isinstance(layer.f, int)
                    else [value if j == -1 else outputs[j] for j in cast("list[int]", layer.f)]
                )
            value = layer(value)
            outputs.append(value)
        result: tuple[torch.Tensor, ...] = value
        return result


_LAYERS: Mapping[str, type[nn.Module]] = {
    "models.yolo.Model": YOLOv5,
    "models.yolo.DetectionModel": YOLOv5,
    "models.yolo.Detect": Detect,
    "models.common.Conv": Conv,
    "models.common.C3": C3,
    "models.common.SPPF": SPPF,
    "models.common.Bottleneck": Bottleneck,
    "models.common.Concat": Concat,
    "torch.nn.modules.batchnorm.BatchNorm2d": nn.BatchNorm2d,
    "torch.nn.modules.conv.Conv2d": nn.Conv2d,
    "torch.nn.modules.pooling.MaxPool2d": nn.MaxPool2d,
    "torch.nn.modules.container.ModuleList": nn.ModuleList,
    "torch.nn.modules.container.Sequential": nn.Sequential,
    "torch.nn.modules.activation.SiLU": nn.SiLU,
    "torch.nn.modules.upsampling.Upsample": nn.Upsample,
}
_IGNORED = frozenset(
    {
        "numpy.core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy.ndarray",
        "numpy.dtype",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",
        "_codecs.encode",
        "torch.Size",
        "torch.device",
    }
)

_PROBE_SIDE = 64
_MOST_CLASSES, _LONGEST_CLASS_NAME = 10_000, 200
_MOST_CHANNELS = 8192
_MOST_OPERATIONS = 20_000
_LARGEST_SETTING = 64


def read_checkpoint(path: Path) -> tuple[YOLOv5, HeadLayout]:
    """The float32 model of a YOLOv5 v6/v7 .pt file, ready to run, and its head layout.

    Raises ModelError for a file that is no checkpoint, asks for a name that is not known, has
    sizes that make no sense, or whose last layer is not YOLOv5's three heads.
    """
    require_size(path)
    try:
        content = read_archive(path, _LAYERS, _IGNORED)
    except Refused as error:
        raise ModelError(f"{path}: refused, nothing in it was run: {error}") from error
    except Exception as error:  # Garbage makes the reader fail in any way it likes.
        raise ModelError(f"{path}: not a PyTorch checkpoint ({_one_line(error)})") from error
    model = None
    if isinstance(content, dict):
        model = content.get("ema")
        model = content.get("model") if model is None else model
    if not isinstance(model, YOLOv5):
        raise ModelError(f"{path}: holds no YOLOv5 detection model")
    layout = _head_layout(path, model)
    try:
        _require_sane_layers(model)
        return _ready_to_run(model), layout
    except Refused as error:
        raise ModelError(f"{path}: refused: {error}") from error
    except Exception as error:  # Layers that do not fit each other fail in as many ways.
        raise ModelError(f"{path}: its layers cannot be run ({_one_line(error)})") from error


def _head_layout(path: Path, model: YOLOv5) -> HeadLayout:
    try:
        detect = model.model[-1]
        if not isinstance(detect, Detect):
            raise ModelError(f"{path}: its last layer is not YOLOv5's detection layer")
        channels = [conv.out_channels for conv in detect.m]
        shape = tuple(detect.anchors.shape)
        if len(channels) > _MOST_CHANNELS or len(shape) != 3 or shape[1] > _MOST_CHANNELS:
            raise ModelError(f"{path}: its detection layer has {len(channels)} heads")
        strides = tuple(int(stride) for stride in detect.stride.reshape(len(channels)))
        anchors = detect.anchors.float() * detect.stride.float().view(-1, 1, 1)
        layout = HeadLayout(
            class_names=_class_names(path, model),
            anchors_px=tuple(tuple((w, h) for w, h in head) for head in anchors.tolist()),
            strides=strides,
        )
        expected = [layout.num_anchors * layout.num_values] * len(STRIDES)
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path}: its detection layer is incomplete ({_one_line(error)})"
        ) from error
    if strides != STRIDES or channels != expected:
        raise ModelError(
            f"{path}: expected heads at strides {STRIDES} with {expected} channels for "
            f"{layout.num_classes} classes, found strides {strides} with {channels}"
        )
    return layout


def _class_names(path: Path, model: YOLOv5) -> tuple[str, ...]:
    names = model.names
    found = tuple(names.values() if isinstance(names, dict) else names)
    if len(found) > _MOST_CLASSES:
        raise ModelError(f"{path}: it names {len(found)} classes, {_MOST_CLASSES} at the most")
    if not all(isinstance(name, str) and len(name) <= _LONGEST_CLASS_NAME for name in found):
        raise ModelError(f"{path}: a class name in it is no text or too long")
    return found


class _BoundedShapes(TorchFunctionMode):
    """Refuses values larger than any layer of YOLOv5 has for a picture of the probe's size."""

    def __init__(self) -> None:
        super().__init__()
        self._operations = 0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        value = func(*args, **(kwargs or {}))
        self._operations += 1
        if self._operations > _MOST_OPERATIONS:
            raise Refused(f"its layers take more than {_MOST_OPERATIONS} steps")
        for tensor in value if isinstance(value, tuple | list) else [value]:
            if isinstance(tensor, torch.Tensor) and tensor.ndim == 4:
                _, channels, *sides = tensor.shape
                if channels > _MOST_CHANNELS or max(sides) > _PROBE_SIDE:
                    raise Refused(
                        f"a layer of it makes {list(tensor.shape)} of a picture of "
                        f"{_PROBE_SIDE}x{_PROBE_SIDE}"
                    )
        return value


def _require_sane_layers(model: YOLOv5) -> None:
    """Raise Refused, or whatever the layers raise, unless they take a picture within bounds."""
    seen: set[int] = set()
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.MaxPool2d):
            for name in ("kernel_size", "stride", "padding", "dilation"):
                value = getattr(layer, name)
                if any(abs(n) > _LARGEST_SETTING for n in _flat(value)):
                    raise Refused(f"a {type(layer).__name__} of it has a {name} of {value}")
        for child in layer.children():
            # What has nothing of its own may serve in many places, as activations do.
            if id(child) in seen and any(True for _ in child.state_dict(keep_vars=True)):
                raise Refused(f"a {type(child).__name__} of it is used in two places")
            seen.add(id(child))
    with torch.no_grad(), _BoundedShapes():
        # A batch of none has all shapes, and takes neither memory nor time.
        model.eval()(torch.zeros(0, 3, _PROBE_SIDE, _PROBE_SIDE))


def _flat(value: object) -> list[int]:
    return [int(n) for n in value] if isinstance(value, tuple | list) else [int(cast("int", value))]


def _ready_to_run(model: YOLOv5) -> YOLOv5:
    """Evaluation mode, each batch normalisation folded into its convolution."""
    model = model.eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, Conv) and hasattr(module, "bn"):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            del module.bn
            module.forward = module.forward_fuse  # type: ignore[method-assign]
    return model


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
