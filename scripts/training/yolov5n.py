"""YOLOv5n, untrained, and the way to write it in YOLOv5's own checkpoint format."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

# First, because it keeps ultralytics from looking around when that is imported.
from pipeline.model.pytorch import YOLO, Detect

import torch  # isort: skip
from torch import nn  # isort: skip
from ultralytics.nn.modules import C3, SPPF, Bottleneck, Concat, Conv  # isort: skip


STRIDES = (8, 16, 32)
"""Of YOLOv5n's three heads."""

AnchorsPx = Sequence[Sequence[tuple[float, float]]]

_ORIGINAL_NAMES: dict[type, str] = {
    YOLO: "models.yolo.DetectionModel",
    Detect: "models.yolo.Detect",
    Conv: "models.common.Conv",
    C3: "models.common.C3",
    SPPF: "models.common.SPPF",
    Bottleneck: "models.common.Bottleneck",
    Concat: "models.common.Concat",
}


def new_yolov5n(class_names: Sequence[str], anchors_px: AnchorsPx) -> YOLO:
    """With random weights from PyTorch's generator; anchors_px: three (w, h) for each stride."""
    # Untyped, as ultralytics has them.
    conv: Any = Conv
    concat: Any = Concat
    last = -1
    heads = [17, 20, 23]
    layers: list[tuple[int | list[int], nn.Module]] = [
        (last, conv(3, 16, 6, 2, 2)),
        (last, conv(16, 32, 3, 2)),
        (last, C3(32, 32, 1)),
        (last, conv(32, 64, 3, 2)),
        (last, C3(64, 64, 2)),
        (last, conv(64, 128, 3, 2)),
        (last, C3(128, 128, 3)),
        (last, conv(128, 256, 3, 2)),
        (last, C3(256, 256, 1)),
        (last, SPPF(256, 256, 5)),
        (last, conv(256, 128, 1, 1)),
        (last, nn.Upsample(None, 2, "nearest")),
        ([last, 6], concat(1)),
        (last, C3(256, 128, 1, False)),
        (last, conv(128, 64, 1, 1)),
        (last, nn.Upsample(None, 2, "nearest")),
        ([last, 4], concat(1)),
        (last, C3(128, 64, 1, False)),
        (last, conv(64, 64, 3, 2)),
        ([last, 14], concat(1)),
        (last, C3(128, 128, 1, False)),
        (last, conv(128, 128, 3, 2)),
        ([last, 10], concat(1)),
        (last, C3(256, 256, 1, False)),
        (heads, _new_detect(len(class_names), (64, 128, 256), anchors_px)),
    ]
    for number, (source, layer) in enumerate(layers):
        original = _ORIGINAL_NAMES.get(type(layer), f"{type(layer).__module__}.Upsample")
        num_parameters = sum(parameter.numel() for parameter in layer.parameters())
        values = {"i": number, "f": source, "type": original, "np": num_parameters}
        layer.__dict__.update(values)
    model = YOLO()
    model.model = nn.Sequential(*(layer for _, layer in layers))
    model.names = dict(enumerate(class_names))
    model.__dict__.update(
        nc=len(class_names),
        stride=torch.tensor(STRIDES, dtype=torch.float32),
        save=[4, 6, 10, 14, *heads],
        inplace=True,
        yaml={"nc": len(class_names), "depth_multiple": 0.33, "width_multiple": 0.25, "ch": 3},
    )
    for module in model.modules():
        if isinstance(module, Conv):
            # Ultralytics' own later models do without this activation in SPPF; YOLOv5 does not.
            module.act = nn.SiLU(inplace=True)
        elif isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = 1e-3, 0.03
    return model


def save_checkpoint(path: Path, model: YOLO, **content: Any) -> None:
    """Write the model, as float16, the way YOLOv5's own training ends; complete or not at all.

    content: further plain values for the file's dictionary.
    """
    half = copy.deepcopy(model).half().eval()
    for parameter in half.parameters():
        parameter.data = parameter.data.contiguous()
    half.requires_grad_(False)
    partial = path.with_name(path.name + ".partial")
    file = {"epoch": -1, "model": half, "ema": None, "optimizer": None, **content}
    with _under_original_names():
        torch.save(file, partial)
    partial.replace(path)


def in_channels_last(model: YOLO) -> None:
    """Keep the convolutions' weights in the layout that CPUs train fastest with."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _new_detect(num_classes: int, channels: Sequence[int], anchors_px: AnchorsPx) -> Detect:
    stride = torch.tensor(STRIDES, dtype=torch.float32)
    anchors = torch.tensor(anchors_px, dtype=torch.float32)
    num_values = 5 + num_classes
    detect = Detect()
    detect.register_buffer("anchors", anchors / stride.view(-1, 1, 1))
    detect.m = nn.ModuleList(
        nn.Conv2d(width, anchors.shape[1] * num_values, 1) for width in channels
    )
    detect.__dict__.update(
        nc=num_classes,
        no=num_values,
        nl=len(STRIDES),
        na=anchors.shape[1],
        stride=stride,
        inplace=True,
        grid=[torch.empty(0)] * len(STRIDES),
        anchor_grid=[torch.empty(0)] * len(STRIDES),
    )
    for conv, step in zip(detect.m, STRIDES, strict=True):
        assert isinstance(conv, nn.Conv2d)
        assert conv.bias is not None
        with torch.no_grad():
            bias = conv.bias.view(-1, num_values)
            # About eight things in a picture of 640 pixels, of any class.
            bias[:, 4] = math.log(8 / (640 / step) ** 2)
            bias[:, 5:] = math.log(0.6 / num_classes)
    return detect


@contextmanager
def _under_original_names() -> Iterator[None]:
    """Let the classes pass as YOLOv5's own, so that a pickle names them like that."""
    modules: dict[str, ModuleType] = {"models": ModuleType("models")}
    before = {cls: (cls.__module__, cls.__qualname__) for cls in _ORIGINAL_NAMES}
    for cls, name in _ORIGINAL_NAMES.items():
        module, _, qualname = name.rpartition(".")
        modules.setdefault(module, ModuleType(module)).__dict__[qualname] = cls
        cls.__module__, cls.__qualname__ = module, qualname
    hidden = {name: sys.modules[name] for name in modules if name in sys.modules}
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            del sys.modules[name]
        sys.modules.update(hidden)
        for cls, (module, qualname) in before.items():
            cls.__module__, cls.__qualname__ = module, qualname
