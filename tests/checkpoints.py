"""Small checkpoints of every kind, written on the spot."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipeline.core.config import InferOptions
from pipeline.inference.openvino import compile_model
from pipeline.model.prepare import PreparedModel
from tests.conftest import (
    whole_heads,
)

ANCHORS_PX = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)


class Conv(nn.Module):
    __module__ = "models.common"

    def __init__(self, c1: int, c2: int, k: int = 1, s: int = 1, p: int | None = None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c1, c2, k, s, k // 2 if p is None else p, bias=False)
        self.bn = nn.BatchNorm2d(c2, eps=1e-3)
        self.act = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.act(self.bn(self.conv(x))))


class Bottleneck(nn.Module):
    __module__ = "models.common"

    def __init__(self, c1: int, c2: int, shortcut: bool) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c2), Conv(c2, c2, 3)
        self.add = shortcut and c1 == c2

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.cv2(self.cv1(x))
        return x + y if self.add else y


class C3(nn.Module):
    __module__ = "models.common"

    def __init__(self, c1: int, c2: int, n: int = 1, shortcut: bool = True) -> None:
        super().__init__()
        half = c2 // 2
        self.cv1, self.cv2, self.cv3 = Conv(c1, half), Conv(c1, half), Conv(2 * half, c2)
        self.m = nn.Sequential(*(Bottleneck(half, half, shortcut) for _ in range(n)))

    def forward(self, x: Tensor) -> Tensor:
        return cast("Tensor", self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1)))


class SPPF(nn.Module):
    __module__ = "models.common"

    def __init__(self, c1: int, c2: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c1, c1 // 2), Conv(c1 * 2, c2)
        self.m = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        y1 = self.m(x)
        y2 = self.m(y1)
        return cast("Tensor", self.cv2(torch.cat((x, y1, y2, self.m(y2)), 1)))


class Concat(nn.Module):
    __module__ = "models.common"

    def __init__(self) -> None:
        super().__init__()
        self.d = 1

    def forward(self, x: list[Tensor]) -> Tensor:
        return torch.cat(x, self.d)


class Detect(nn.Module):
    __module__ = "models.yolo"

    def __init__(self, nc: int, channels: list[int], anchors_px: Any, strides: list[int]) -> None:
        super().__init__()
        self.nc, self.no, self.nl, self.na = nc, nc + 5, len(strides), 3
        self.grid = [torch.empty(0) for _ in strides]
        self.stride = torch.tensor(strides, dtype=torch.float32)
        anchors = torch.tensor(anchors_px) / self.stride.view(-1, 1, 1)
        self.register_buffer("anchors", anchors)
        self.m = nn.ModuleList(nn.Conv2d(c, 3 * self.no, 1) for c in channels)
        self.inplace = True

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        return [conv(y) for conv, y in zip(self.m, x, strict=True)]


class DetectionModel(nn.Module):
    __module__ = "models.yolo"

    def __init__(self, layers: list[tuple[int | list[int], nn.Module]], names: Any) -> None:
        super().__init__()
        for i, (source, layer) in enumerate(layers):
            layer.i, layer.f, layer.type = i, source, type(layer).__name__  # type: ignore[assignment]
        self.model = nn.Sequential(*(layer for _, layer in layers))
        self.names, self.yaml, self.save = names, {"nc": len(names)}, [1, 2]
        self.hyp = {"box": 0.05}

    def forward(self, x: Tensor) -> list[Tensor]:
        done: list[Any] = []
        value: Any = x
        for layer in self.model:
            source = cast("int | list[int]", layer.f)
            if isinstance(source, list):
                value = [value if j == -1 else done[j] for j in source]
            elif source != -1:
                value = done[source]
            value = layer(value)
            done.append(value)
        return cast("list[Tensor]", value)


class Segment(Detect):
    __module__ = "models.yolo"


class SegmentationModel(DetectionModel):
    __module__ = "models.yolo"


CLASSES = (Conv, Bottleneck, C3, SPPF, Concat, Detect, DetectionModel, Segment, SegmentationModel)


@contextmanager
def original_modules() -> Iterator[None]:
    """YOLOv5's own modules, there only while a checkpoint is written."""
    names = ("models", "models.common", "models.yolo")
    made = {name: ModuleType(name) for name in names}
    for cls in CLASSES:
        setattr(made[cls.__module__], cls.__name__, cls)
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def save(path: Path, model: nn.Module, **content: Any) -> Path:
    """Write what YOLOv5's train.py writes."""
    with original_modules():
        torch.save({"epoch": -1, "optimizer": None, "model": model, "ema": None, **content}, path)
    return path


def randomized(model: DetectionModel) -> DetectionModel:
    """Weights and batch statistics as different as training makes them."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)
            nn.init.normal_(cast("Tensor", module.running_mean), 0, 0.3)
            nn.init.uniform_(cast("Tensor", module.running_var), 0.5, 2.0)
        elif isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0, module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.3)
    return model.eval()


def class_names(num_classes: int) -> dict[int, str]:
    return {i: f"thing {i}" for i in range(num_classes)}


def small_yolov5(num_classes: int) -> DetectionModel:
    """Every kind of layer of YOLOv5n, and few of each."""
    layers: list[tuple[int | list[int], nn.Module]] = [
        (-1, Conv(3, 8, 6, 2, 2)),
        (-1, Conv(8, 8, 3, 2)),
        (-1, C3(8, 8, 2)),
        (-1, Conv(8, 16, 3, 2)),
        (-1, C3(16, 16)),
        (-1, Conv(16, 16, 3, 2)),
        (-1, Conv(16, 16, 3, 2)),
        (-1, SPPF(16, 16)),
        (-1, nn.Upsample(None, 2, "nearest")),
        ([-1, 5], Concat()),
        (-1, C3(32, 16, 1, False)),
        ([4, 10, 7], Detect(num_classes, [16, 16, 16], ANCHORS_PX, [8, 16, 32])),
    ]
    return randomized(DetectionModel(layers, class_names(num_classes)))


def three_convolutions(num_classes: int, strides: tuple[int, ...] = (8, 16, 32)) -> DetectionModel:
    """The smallest thing with YOLOv5's heads."""
    layers: list[tuple[int | list[int], nn.Module]] = [(-1, Conv(3, 8, 8, 8, 0))]
    layers += [(-1, Conv(8, 8, 2, 2, 0)) for _ in strides[1:]]
    anchors_px = [ANCHORS_PX[min(i, 2)] for i in range(len(strides))]
    detect = Detect(num_classes, [8] * len(strides), anchors_px, list(strides))
    layers.append((list(range(len(strides))), detect))
    return randomized(DetectionModel(layers, class_names(num_classes)))


WIDE = (768, 432)
IMGSZ = 160


CONVERT_IN_A_FRESH_PROCESS = """
import sys
from pathlib import Path
from pipeline.inference.openvino import compile_model
from pipeline.core.config import DetectOptions, InferOptions
from pipeline.model.prepare import prepare_model
stages = []
prepared = prepare_model(
    Path(sys.argv[1]), (int(sys.argv[2]), int(sys.argv[3])), 160, lambda p: stages.append(p.stage)
)
compile_model(prepared.model, InferOptions(), prepared.compiled_cache_dir)
print("imported:", *sorted({"torch", "onnx", "ultralytics"} & set(sys.modules)))
print("stages:", *sorted(set(stages)))
"""


class Decoded(nn.Module):
    """YOLOv5's Detect.forward in its inference form, as export.py writes it."""

    def __init__(
        self,
        raw: DetectionModel,
        sizes_by: str = "yolov5",
        strides: tuple[int, ...] = (8, 16, 32),
    ) -> None:
        super().__init__()
        self.raw = raw
        self.strides = strides
        self.sizes_by = sizes_by

    def forward(self, image: Tensor) -> Tensor:
        boxes = []
        for i, (head, stride) in enumerate(zip(self.raw(image), self.strides, strict=True)):
            anchors = ANCHORS_PX[min(i, 2)]
            batch, channels, ny, nx = head.shape
            values = channels // 3
            x = head.view(batch, 3, values, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            rows = torch.arange(ny, dtype=torch.float32).view(1, 1, ny, 1).expand(1, 3, ny, nx)
            columns = torch.arange(nx, dtype=torch.float32).view(1, 1, 1, nx).expand(1, 3, ny, nx)
            grid = torch.stack((columns, rows), 4) - 0.5
            anchor_wh = torch.tensor(anchors).view(1, 3, 1, 1, 2)
            xy, wh, confidence = x.sigmoid().split((2, 2, values - 4), 4)
            xy = (xy * 2 + grid) * stride
            wh = (wh * 2) ** 2 * anchor_wh if self.sizes_by == "yolov5" else wh.exp() * anchor_wh
            y = torch.cat((xy, wh, confidence), 4)
            boxes.append(y.view(batch, 3 * nx * ny, values))
        return torch.cat(boxes, 1)


def write_onnx(
    path: Path,
    module: nn.Module,
    *,
    side: int = 320,
    dynamic: bool = False,
    names: dict[int, str] | None = None,
) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            (torch.zeros(1, 3, side, side),),
            str(path),
            input_names=["images"],
            dynamic_axes={"images": {0: "batch", 2: "height", 3: "width"}} if dynamic else None,
            opset_version=17,
            dynamo=False,
        )
    if names is not None:
        model = onnx.load(path)
        for key, value in (("stride", "32"), ("names", str(names))):
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
        onnx.save(model, path)
    return path


def picture(size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (1, size_wh[1], size_wh[0], 3), np.uint8)


def heads_of(prepared: PreparedModel) -> list[NDArray[np.float32]]:
    options = InferOptions(precision="f32")
    with compile_model(prepared.model, options, prepared.compiled_cache_dir) as compiled:
        outputs = [head[0] for head in compiled.infer(picture(prepared.input_wh))]
    return whole_heads(prepared, outputs)
