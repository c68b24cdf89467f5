"""A checkpoint as a PyTorch model, the baseline. Importing this module imports torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pipeline.core.cache import cache_dir
from pipeline.core.errors import ModelError
from pipeline.model.checkpoint import (
    DETECT,
    ULTRALYTICS_DETECTS,
    ULTRALYTICS_LAYERS,
    ULTRALYTICS_MODELS,
    YOLOV5_MODELS,
    CheckpointLayout,
    one_line,
    read_checkpoint,
)
from pipeline.model.layers import build_graph
from pipeline.model.pickle_machine import Layer

# Otherwise ultralytics writes settings into the home folder, prints, and uses the network.
os.environ.setdefault("YOLO_CONFIG_DIR", str(cache_dir()))
os.environ.setdefault("YOLO_VERBOSE", "false")
os.environ.setdefault("YOLO_OFFLINE", "true")

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from ultralytics.nn.modules import C3, SPPF, Bottleneck, Concat, Conv, block, conv


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


class AnchorFreeDetect(nn.Module):
    """The detection layer of ultralytics up to its raw heads: classes and box of each stride."""

    cv2: nn.ModuleList
    cv3: nn.ModuleList

    def forward(self, features: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        levels = zip(self.cv3.children(), self.cv2.children(), features, strict=True)
        return tuple(branch(x) for *of_level, x in levels for branch in of_level)


class YOLO(nn.Module):
    """The layers of a checkpoint, each taking what its `f` names from those before.

    forward: float32 (N, 3, height, width), RGB in 0..1 -> the raw heads as the head of the
    checkpoint takes them, float32 (N, values, height / stride, width / stride).
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


_MODULES: Mapping[str, type[nn.Module]] = {
    **dict.fromkeys(YOLOV5_MODELS | ULTRALYTICS_MODELS, YOLO),
    **dict.fromkeys(ULTRALYTICS_DETECTS, AnchorFreeDetect),
    **{
        name: getattr(module, short)
        for name in ULTRALYTICS_LAYERS - ULTRALYTICS_DETECTS
        for short in [name.rpartition(".")[2]]
        for module in (conv, block)
        if hasattr(module, short)  # Older versions have fewer.
    },
    DETECT: Detect,
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
    "torch.nn.modules.linear.Identity": nn.Identity,
    "torch.nn.modules.upsampling.Upsample": nn.Upsample,
}


def read_pytorch(path: Path, *, nms_free: bool = False) -> tuple[YOLO, CheckpointLayout]:
    """The float32 model of a .pt file, ready to run, and its head layout.

    nms_free: see `read_checkpoint`. Raises ModelError for what `build_graph` refuses.
    """
    _, layout = build_graph(
        path, nms_free=nms_free
    )  # Whose bounds hold for the same layers in PyTorch.
    layers, _ = read_checkpoint(path, nms_free=nms_free)
    try:
        return _ready_to_run(cast("YOLO", _module(layers))), layout
    except Exception as error:  # Inconsistent layers can raise any exception.
        raise ModelError(f"{path}: its layers cannot be run ({one_line(error)})") from error


def _module(layer: Layer) -> nn.Module:
    """A layer with its parameters, layers and settings; methods and hooks stay its class's own."""
    cls = _MODULES[layer.kind]
    module = cls.__new__(cls)
    nn.Module.__init__(module)
    buffers = ("running_mean", "running_var", "num_batches_tracked", "anchors")
    for name, array in layer.tensors.items():
        tensor = torch.from_numpy(array)
        if name in buffers:
            module.register_buffer(name, tensor)
        else:
            module.register_parameter(name, nn.Parameter(tensor, requires_grad=False))
    if isinstance(module, nn.Conv2d) and "bias" not in layer.tensors:
        module.register_parameter("bias", None)
    for name, child in layer.children.items():
        module.add_module(name, _module(child))
    settings = {
        name: torch.from_numpy(value) if hasattr(value, "dtype") else value
        for name, value in layer.settings.items()
        if not hasattr(cls, name)
    }
    # Handles settings that older versions do not have.
    module.__setstate__(settings)  # type: ignore[no-untyped-call]
    return module


def _ready_to_run(model: YOLO) -> YOLO:
    """Evaluation mode, each batch normalisation folded into its convolution."""
    model = model.eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, Conv) and hasattr(module, "bn"):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            del module.bn
            module.forward = module.forward_fuse  # type: ignore[method-assign]
    return model
