"""Reading a .pt file without running anything that is in it."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import numpy as np
import openvino as ov
import pytest
import torch
from torch import Tensor, nn

from pipeline.core.errors import ModelError
from pipeline.model.layers import build_graph
from pipeline.model.pytorch import read_pytorch
from tests.conftest import CHECKPOINT, needs_checkpoint

ANCHORS_PX = (
    ((10.0, 13.0), (16.0, 30.0), (33.0, 23.0)),
    ((30.0, 61.0), (62.0, 45.0), (59.0, 119.0)),
    ((116.0, 90.0), (156.0, 198.0), (373.0, 326.0)),
)


# The classes of YOLOv5, as far as its detection models use them, under their original names.


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


def images(size_wh: tuple[int, int]) -> Tensor:
    torch.manual_seed(1)
    return torch.rand(1, 3, size_wh[1], size_wh[0])


def assert_same_heads(found: Any, expected: list[Tensor]) -> None:
    assert len(found) == len(expected) == 3
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(np.asarray(a), b.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("num_classes", [1, 3, 80])
def test_a_checkpoint_gives_the_heads_of_the_model_that_was_saved(
    tmp_path: Path, num_classes: int
) -> None:
    original = small_yolov5(num_classes)
    model, layout = read_pytorch(save(tmp_path / "model.pt", original))
    assert layout.class_names == tuple(class_names(num_classes).values())
    np.testing.assert_allclose(layout.anchors_px, ANCHORS_PX, rtol=1e-3)
    assert layout.strides == (8, 16, 32)
    with torch.no_grad():
        assert_same_heads(model(images((96, 64))), original(images((96, 64))))


def test_a_checkpoint_in_half_precision_runs_in_full(tmp_path: Path) -> None:
    original = small_yolov5(2).half()
    model, _ = read_pytorch(save(tmp_path / "model.pt", original))
    with torch.no_grad():
        assert_same_heads(model(images((64, 64))), original.float()(images((64, 64))))


def test_the_averaged_weights_are_taken_where_there_are_any(tmp_path: Path) -> None:
    averaged = small_yolov5(2)
    trained = small_yolov5(2)
    nn.init.zeros_(cast("Detect", trained.model[-1]).m[0].weight)  # type: ignore[arg-type]
    path = save(
        tmp_path / "model.pt",
        trained,
        ema=averaged,
        best_fitness=np.array([0.5]),
        opt={"imgsz": 640, "save_dir": Path("runs/exp")},
        date="2022-11-22T12:00:00",
    )
    model, _ = read_pytorch(path)
    with torch.no_grad():
        assert_same_heads(model(images((64, 64))), averaged(images((64, 64))))


def test_class_names_may_be_a_plain_list(tmp_path: Path) -> None:
    original = three_convolutions(2)
    original.names = ["cat", "dog"]
    _, layout = read_pytorch(save(tmp_path / "model.pt", original))
    assert layout.class_names == ("cat", "dog")


@pytest.mark.parametrize("num_classes", [1, 80])
def test_the_graph_gives_the_same_heads_at_any_size(tmp_path: Path, num_classes: int) -> None:
    original = small_yolov5(num_classes)
    graph, layout = build_graph(save(tmp_path / "model.pt", original))
    assert layout.num_classes == num_classes
    core = ov.Core()
    compiled = core.compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for size_wh in ((96, 64), (64, 160)):
        with torch.no_grad():
            expected = original(images(size_wh))
        assert_same_heads(list(compiled([images(size_wh).numpy()]).values()), expected)


def zipped(path: Path, data: bytes) -> Path:
    """A pickle in the wrapping of torch.save."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "torch.hub.load",
        "torch.load",
        "torch.jit.load",
        "torch.serialization.load",
        "torch.ops.load_library",
        "torch.utils.cpp_extension.load",
        "builtins.getattr",
        "builtins.__import__",
        "importlib.import_module",
        "runpy.run_path",
        "pickle.loads",
        "shutil.rmtree",
        "ultralytics.nn.tasks.DetectionModel",
        "ultralytics.nn.modules.block.C2f",
        "models.yolo.SegmentationModel",
        "models.yolo.ClassificationModel",
        "models.common.DetectMultiBackend",
        "pipeline.model.weights.download",
    ],
)
def test_a_name_that_is_not_known_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    module, _, attribute = name.rpartition(".")
    data = f"\x80\x02c{module}\n{attribute}\n)R.".encode("latin-1")
    with pytest.raises(ModelError, match=name.removeprefix("builtins.")) as caught:
        read_pytorch(zipped(tmp_path / "model.pt", data))
    assert "\n" not in str(caught.value)


def test_a_segmentation_model_is_refused_by_its_name(tmp_path: Path) -> None:
    small = three_convolutions(2)
    small.__class__ = SegmentationModel
    with pytest.raises(ModelError, match=r"models\.yolo\.SegmentationModel"):
        read_pytorch(save(tmp_path / "model.pt", small))


def torchscript(path: Path) -> None:
    scripted = torch.jit.trace(nn.Conv2d(3, 3, 1), torch.zeros(1, 3, 8, 8))  # type: ignore[no-untyped-call]
    scripted.save(str(path))


def truncated(path: Path) -> None:
    save(path, three_convolutions(2))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def without_its_weights(path: Path) -> None:
    whole = save(path.with_suffix(".whole"), three_convolutions(2))
    with zipfile.ZipFile(whole) as source, zipfile.ZipFile(path, "w") as target:
        for name in source.namelist():
            if "/data/" not in name:
                target.writestr(name, source.read(name))


NO_CHECKPOINTS = {
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("not a checkpoint\n" * 100),
    "zeros": lambda path: path.write_bytes(bytes(10_000)),
    "a zip of something else": lambda path: zipfile.ZipFile(path, "w").close(),
    "truncated": truncated,
    "without its weights": without_its_weights,
}


@pytest.mark.parametrize("make", NO_CHECKPOINTS.values(), ids=NO_CHECKPOINTS.keys())
def test_what_is_no_checkpoint_is_one_clear_error(tmp_path: Path, make: Any) -> None:
    make(tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"model\.pt") as caught:
        read_pytorch(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_file_is_one_clear_error(tmp_path: Path) -> None:
    torchscript(tmp_path / "model.pt")
    with pytest.raises(ModelError, match=r"model\.pt") as caught:
        read_pytorch(tmp_path / "model.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        torch.zeros(3),
        [1, 2],
        {"model": {"weight": torch.zeros(3)}},
        {"model": torch.zeros(3)},
        {"ema": torch.zeros(3), "model": None},
        {"model": nn.Sequential(nn.Conv2d(3, 3, 1))},
        {},
    ],
    ids=["tensor", "list", "state dict", "model tensor", "ema tensor", "other module", "empty"],
)
def test_a_file_without_a_yolov5_model_is_one_clear_error(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(ModelError, match="no YOLOv5 detection model"):
        read_pytorch(tmp_path / "model.pt")


def without_layers() -> DetectionModel:
    model = three_convolutions(2)
    del model.model
    return model


def without_names() -> DetectionModel:
    model = three_convolutions(2)
    del model.names
    return model


def with_too_few_names() -> DetectionModel:
    model = three_convolutions(3)
    model.names = {0: "only"}
    return model


def without_detection_layer() -> DetectionModel:
    model = three_convolutions(2)
    del model.model[-1]
    return model


def with_an_empty_layer() -> DetectionModel:
    model = three_convolutions(2)
    del cast("Conv", model.model[0]).conv
    return model


def with_anchors_of_another_shape() -> DetectionModel:
    model = three_convolutions(2)
    cast("Detect", model.model[-1]).anchors = torch.zeros(5)
    return model


@pytest.mark.parametrize(
    "make",
    [
        without_layers,
        without_names,
        with_too_few_names,
        without_detection_layer,
        with_an_empty_layer,
        with_anchors_of_another_shape,
    ],
)
def test_a_model_that_is_incomplete_is_one_clear_error(tmp_path: Path, make: Any) -> None:
    path = save(tmp_path / "model.pt", make())
    with pytest.raises(ModelError, match=r"model\.pt") as caught:
        build_graph(path)
    assert "\n" not in str(caught.value)


def test_a_layer_that_takes_its_input_from_nowhere_is_one_clear_error(tmp_path: Path) -> None:
    model = three_convolutions(2)
    model.model[1].f = 17  # type: ignore[assignment]
    path = save(tmp_path / "model.pt", model)
    with pytest.raises(ModelError, match="layers cannot be run") as caught:
        build_graph(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strides", [(8, 16), (8, 16, 32, 64), (4, 8, 16)], ids=str)
def test_other_heads_than_those_of_yolov5_are_refused(
    tmp_path: Path, strides: tuple[int, ...]
) -> None:
    path = save(tmp_path / "model.pt", three_convolutions(2, strides))
    with pytest.raises(ModelError, match=r"expected heads at strides \(8, 16, 32\)"):
        read_pytorch(path)


@needs_checkpoint
def test_the_official_checkpoint_knows_80_classes_and_its_anchors_in_pixels() -> None:
    model, layout = read_pytorch(CHECKPOINT)
    assert layout.num_classes == 80
    assert layout.class_names[:3] == ("person", "bicycle", "car")
    assert layout.class_names[79] == "toothbrush"
    assert layout.anchors_px == ANCHORS_PX
    with torch.no_grad():
        shapes = [tuple(head.shape) for head in model(torch.zeros(1, 3, 64, 96))]
    assert shapes == [(1, 255, 8, 12), (1, 255, 4, 6), (1, 255, 2, 3)]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
