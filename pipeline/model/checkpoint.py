"""Reads a YOLOv5 checkpoint without running anything that is in it.

A .pt file is a pickle: it names the classes that shall be called. Here only the names below are
known; PyTorch's restricted unpickler refuses every other. Importing this module imports torch.
"""

from __future__ import annotations

import os
import pickle
import re
from pathlib import Path
from typing import Any, cast

from pipeline.errors import ModelError
from pipeline.heads import STRIDES, HeadLayout
from pipeline.model.weights import cache_dir

# Ultralytics otherwise writes settings into the home folder, talks, and looks for a network.
os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_dir()))
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from ultralytics.nn.modules import C3, SPPF, Bottleneck, Concat, Conv


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


class _Ignored:
    """Stands for training leftovers (metrics, options) that the model does not need."""

    def __init__(self, *_: object) -> None:
        return

    def __setstate__(self, _: object) -> None:
        return


_KNOWN_NAMES: tuple[tuple[Any, str], ...] = (
    (YOLOv5, "models.yolo.Model"),
    (YOLOv5, "models.yolo.DetectionModel"),
    (Detect, "models.yolo.Detect"),
    (Conv, "models.common.Conv"),
    (C3, "models.common.C3"),
    (SPPF, "models.common.SPPF"),
    (Bottleneck, "models.common.Bottleneck"),
    (Concat, "models.common.Concat"),
    (nn.BatchNorm2d, "torch.nn.modules.batchnorm.BatchNorm2d"),
    (nn.Conv2d, "torch.nn.modules.conv.Conv2d"),
    (nn.MaxPool2d, "torch.nn.modules.pooling.MaxPool2d"),
    (nn.ModuleList, "torch.nn.modules.container.ModuleList"),
    (nn.Sequential, "torch.nn.modules.container.Sequential"),
    (nn.SiLU, "torch.nn.modules.activation.SiLU"),
    (nn.Upsample, "torch.nn.modules.upsampling.Upsample"),
    (set, "__builtin__.set"),
    (_Ignored, "numpy.core.multiarray.scalar"),
    (_Ignored, "numpy.core.multiarray._reconstruct"),
    (_Ignored, "numpy._core.multiarray.scalar"),
    (_Ignored, "numpy._core.multiarray._reconstruct"),
    (_Ignored, "numpy.ndarray"),
    (_Ignored, "numpy.dtype"),
    (_Ignored, "pathlib.PosixPath"),
)


def read_checkpoint(path: Path) -> tuple[YOLOv5, HeadLayout]:
    """The float32 model of a YOLOv5 v6/v7 .pt file, ready to run, and its head layout.

    Raises ModelError for a file that is no checkpoint, asks for a name that is not known, or
    whose last layer is not YOLOv5's three heads.
    """
    try:
        with torch.serialization.safe_globals(list(_KNOWN_NAMES)):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        name = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = (
            f"it asks for {name[1]}, which a YOLOv5 detection model does not need"
            if name
            else "it asks for something that a YOLOv5 model does not need"
        )
        raise ModelError(f"{path}: refused, nothing in it was run: {reason}") from error
    except Exception as error:  # Garbage makes the reader fail in any way it likes.
        raise ModelError(f"{path}: not a PyTorch checkpoint ({error})") from error
    model = None
    if isinstance(content, dict):
        model = content.get("ema")
        model = content.get("model") if model is None else model
    if not isinstance(model, YOLOv5):
        raise ModelError(f"{path}: holds no YOLOv5 detection model")
    layout = _head_layout(path, model)
    try:
        return _ready_to_run(model), layout
    except (AttributeError, TypeError, RuntimeError) as error:
        raise ModelError(f"{path}: one of its layers is incomplete ({error})") from error


def _head_layout(path: Path, model: YOLOv5) -> HeadLayout:
    try:
        detect = model.model[-1]
        names = model.names
        if not isinstance(detect, Detect):
            raise ModelError(f"{path}: its last layer is not YOLOv5's detection layer")
        strides = tuple(int(stride) for stride in detect.stride)
        anchors = detect.anchors.float() * detect.stride.float().view(-1, 1, 1)
        layout = HeadLayout(
            class_names=tuple(names.values() if isinstance(names, dict) else names),
            anchors_px=tuple(tuple((w, h) for w, h in head) for head in anchors.tolist()),
            strides=strides,
        )
        channels = [conv.out_channels for conv in detect.m]
    except (AttributeError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{path}: its detection layer is incomplete ({error})") from error
    expected = [layout.num_anchors * layout.num_values] * len(STRIDES)
    if strides != STRIDES or channels != expected:
        raise ModelError(
            f"{path}: expected heads at strides {STRIDES} with {expected} channels for "
            f"{layout.num_classes} classes, found strides {strides} with {channels}"
        )
    return layout


def _ready_to_run(model: YOLOv5) -> YOLOv5:
    """Float32, evaluation mode, each batch normalisation folded into its convolution."""
    model = model.float().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, Conv) and hasattr(module, "bn"):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            del module.bn
            module.forward = module.forward_fuse  # type: ignore[method-assign]
    return model
