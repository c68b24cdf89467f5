"""Reading a .pt file without running anything that is in it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np
import openvino as ov
import pytest
import torch
from torch import Tensor, nn

from pipeline.core.errors import ModelError
from pipeline.model.layers import build_graph
from pipeline.model.pytorch import read_pytorch
from pipeline.model.yolov5 import HeadLayout
from tests.checkpoints import (
    ANCHORS_PX,
    Conv,
    Detect,
    DetectionModel,
    SegmentationModel,
    class_names,
    save,
    small_yolov5,
    three_convolutions,
)
from tests.conftest import CHECKPOINT, needs_checkpoint

# The classes of YOLOv5, as far as its detection models use them, under their original names.


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
    assert isinstance(layout, HeadLayout)
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
    assert isinstance(layout, HeadLayout)
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
    with pytest.raises(ModelError, match="no YOLO detection model"):
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


@pytest.mark.parametrize(
    "strides", [(8, 16), (8, 16, 32, 64, 128), (4, 8, 16), (16, 32, 64, 128)], ids=str
)
def test_other_heads_than_those_of_yolov5_are_refused(
    tmp_path: Path, strides: tuple[int, ...]
) -> None:
    path = save(tmp_path / "model.pt", three_convolutions(2, strides))
    with pytest.raises(ModelError, match=r"expected heads at strides \(8, 16, 32\)"):
        read_pytorch(path)


@needs_checkpoint
def test_the_official_checkpoint_knows_80_classes_and_its_anchors_in_pixels() -> None:
    model, layout = read_pytorch(CHECKPOINT)
    assert isinstance(layout, HeadLayout)
    assert layout.num_classes == 80
    assert layout.class_names[:3] == ("person", "bicycle", "car")
    assert layout.class_names[79] == "toothbrush"
    assert layout.anchors_px == ANCHORS_PX
    with torch.no_grad():
        shapes = [tuple(head.shape) for head in model(torch.zeros(1, 3, 64, 96))]
    assert shapes == [(1, 255, 8, 12), (1, 255, 4, 6), (1, 255, 2, 3)]
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
