"""A model file -> the graph for one input shape, converted once."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import openvino as ov
import pytest
import torch
from openvino import opset13 as ops
from torch import Tensor, nn

from pipeline.core.boxes import Detections
from pipeline.core.cache import is_whole
from pipeline.core.config import DetectOptions, InferOptions
from pipeline.core.errors import ModelError
from pipeline.core.progress import Progress, no_progress
from pipeline.inference.openvino import compile_model
from pipeline.model.graph import reshaped, with_batch
from pipeline.model.letterbox import letterbox
from pipeline.model.postprocess import detections_from
from pipeline.model.prepare import PreparedModel, prepare_model
from pipeline.model.yolov5 import HeadLayout
from tests.checkpoints import (
    ANCHORS_PX,
    CONVERT_IN_A_FRESH_PROCESS,
    IMGSZ,
    WIDE,
    Conv,
    Decoded,
    Detect,
    DetectionModel,
    class_names,
    heads_of,
    picture,
    randomized,
    save,
    small_yolov5,
    three_convolutions,
    write_onnx,
)
from tests.conftest import (
    CHECKPOINT,
    TINY_INPUT_WH,
    TINY_LAYOUT,
    light_detector,
    needs_checkpoint,
    yolov5_head,
)

UPRIGHT = (432, 768)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "model.pt", three_convolutions(3))


class Convolution(nn.Module):
    """One convolution, and then whatever makes the output."""

    def __init__(self, channels: int, then: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, channels, 8, 8)
        self.then = then

    def forward(self, image: Tensor) -> Any:
        return self.then(self.conv(image))


class LikeYOLOv8(nn.Module):
    """(1, 4 + classes, boxes), without objectness."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 84, s, s) for s in (8, 16, 32))

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([conv(image).flatten(2) for conv in self.convs], 2)


class WithMasks(nn.Module):
    """YOLOv5's segmentation: 32 mask coefficients after the classes, and a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.boxes = Decoded(three_convolutions(3 + 32))
        self.masks = nn.Conv2d(3, 32, 4, 4)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        return self.boxes(image), self.masks(image)


def layout_of(prepared: PreparedModel) -> HeadLayout:
    return yolov5_head(prepared).layout


def detections_of(prepared: PreparedModel) -> Detections:
    return detections_from(
        prepared.head,
        prepared.head.select(heads_of(prepared), 0.3),
        letterbox(WIDE, prepared.input_wh),
        DetectOptions(confidence_threshold=0.3, iou_threshold=0.45, max_detections=40),
    )


def stages(weights: Path, source_wh: tuple[int, int] = WIDE) -> list[str]:
    seen: list[Progress] = []
    prepare_model(weights, source_wh, IMGSZ, seen.append)
    return [step.stage for step in seen]


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.rglob(pattern)
    return found


def prepare_in_a_fresh_process(weights: Path, source_wh: tuple[int, int]) -> str:
    command = [sys.executable, "-c", CONVERT_IN_A_FRESH_PROCESS, str(weights)]
    command += [str(side) for side in source_wh]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_the_graph_takes_bytes_and_gives_the_heads_of_the_checkpoint(
    cache: Path, checkpoint: Path
) -> None:
    prepared = prepare_model(checkpoint, WIDE, IMGSZ, no_progress)
    assert prepared.input_wh == (160, 96)
    assert list(prepared.model.input().shape) == [1, 96, 160, 3]
    assert prepared.model.input().element_type == ov.Type.u8
    assert prepared.head.class_names == tuple(class_names(3).values())
    image = torch.from_numpy(picture((160, 96))).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected = [head[0].permute(1, 2, 0) for head in three_convolutions(3)(image)]
    for found, right in zip(heads_of(prepared), expected, strict=True):
        np.testing.assert_allclose(found, right.numpy(), rtol=1e-3, atol=1e-3)


def with_first_layer(kernel: int, padding: int, dilation: int = 1) -> DetectionModel:
    """YOLOv5's heads behind a first convolution of stride 2."""
    first = Conv(3, 8, kernel, 2, padding)
    first.conv.dilation = (dilation, dilation)
    layers: list[tuple[int | list[int], nn.Module]] = [(-1, first), (-1, Conv(8, 8, 4, 4, 0))]
    layers += [(-1, Conv(8, 8, 2, 2, 0)) for _ in range(2)]
    layers.append(([1, 2, 3], Detect(3, [8] * 3, ANCHORS_PX, [8, 16, 32])))
    return randomized(DetectionModel(layers, class_names(3)))


def channels_of_the_first_convolution(model: ov.Model) -> int:
    first = next(op for op in model.get_ordered_ops() if op.get_type_name() == "Convolution")
    return int(first.input_value(1).get_shape()[1])


def assert_heads_of(model: nn.Module, prepared: PreparedModel) -> None:
    image = torch.from_numpy(picture(prepared.input_wh)).permute(0, 3, 1, 2) / 255
    with torch.no_grad():
        expected = [head[0].permute(1, 2, 0) for head in model(image)]
    for found, right in zip(heads_of(prepared), expected, strict=True):
        np.testing.assert_allclose(found, right.numpy(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("kernel", "padding", "dilation", "paired"),
    [
        (6, 2, 1, True),  # YOLOv5's own.
        (2, 0, 1, True),
        (10, 4, 1, True),
        (5, 2, 1, True),
        (1, 0, 1, True),
        (3, 1, 1, False),  # That of YOLOv8 and later.
        (4, 1, 1, False),
        (7, 3, 1, False),
        (3, 2, 2, False),
    ],
)
def test_a_first_convolution_on_pairs_of_columns_gives_what_it_gave_on_columns(
    cache: Path, tmp_path: Path, kernel: int, padding: int, dilation: int, paired: bool
) -> None:
    original = with_first_layer(kernel, padding, dilation)
    weights = save(tmp_path / "model.pt", original)
    for source_wh in (WIDE, UPRIGHT, (64, 64)):
        prepared = prepare_model(weights, source_wh, IMGSZ, no_progress)
        assert channels_of_the_first_convolution(prepared.model) == (6 if paired else 3)
        assert_heads_of(original, prepared)


def test_a_first_convolution_that_skips_pairs_stays_as_it_is(cache: Path, checkpoint: Path) -> None:
    prepared = prepare_model(checkpoint, WIDE, IMGSZ, no_progress)
    assert channels_of_the_first_convolution(prepared.model) == 3
    assert_heads_of(three_convolutions(3), prepared)


def test_the_graph_of_a_checkpoint_with_every_kind_of_layer_gives_its_heads(
    cache: Path, tmp_path: Path
) -> None:
    prepared = prepare_model(save(tmp_path / "model.pt", small_yolov5(2)), WIDE, IMGSZ, no_progress)
    assert channels_of_the_first_convolution(prepared.model) == 6
    assert_heads_of(small_yolov5(2), prepared)


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_in_a_batch_every_picture_has_the_heads_it_has_alone(
    cache: Path, tmp_path: Path, batch: int
) -> None:
    weights = save(tmp_path / "model.pt", small_yolov5(2))
    prepared = prepare_model(weights, WIDE, IMGSZ, no_progress)
    batched = with_batch(prepared.model, batch)
    assert list(batched.input().shape) == [batch, 96, 160, 3]
    assert list(prepared.model.input().shape) == [1, 96, 160, 3]
    assert [list(output.shape) for output in batched.outputs] == [
        [batch, *output.shape[1:]] for output in prepared.model.outputs
    ]
    pictures = np.random.default_rng(5).integers(0, 256, (batch, 96, 160, 3), np.uint8)
    options = InferOptions(precision="f32")
    with (
        compile_model(batched, options, tmp_path) as batches,
        compile_model(prepared.model, options, tmp_path) as alone,
    ):
        together = batches.infer(pictures)
        for i in range(batch):
            for whole, single in zip(together, alone.infer(pictures[i : i + 1]), strict=True):
                np.testing.assert_allclose(whole[i], single[0], rtol=1e-4, atol=1e-4)


def test_a_batch_keeps_the_layout_of_the_heads(cache: Path, tiny_weights: Path) -> None:
    prepared = prepare_model(tiny_weights, WIDE, 640, no_progress)
    assert with_batch(prepared.model, 4).has_rt_info(["pipeline", "head_layout"])


def test_a_conversion_is_done_once_and_tells_how_far_it_is(cache: Path, checkpoint: Path) -> None:
    seen: list[Progress] = []
    first = prepare_model(checkpoint, WIDE, IMGSZ, seen.append)
    assert {(step.stage, step.total) for step in seen} == {("convert", 3)}
    assert [step.done for step in seen] == [0, 1, 2, 3]
    assert stages(checkpoint) == []
    second = prepare_model(checkpoint, WIDE, IMGSZ, no_progress)
    assert layout_of(second) == layout_of(first)
    assert second.input_wh == first.input_wh
    assert second.weights_sha256 == first.weights_sha256
    for a, b in zip(heads_of(first), heads_of(second), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_checkpoint_is_converted_without_torch_and_onnx(cache: Path, checkpoint: Path) -> None:
    cold = prepare_in_a_fresh_process(checkpoint, WIDE)
    assert "imported:\n" in cold
    assert "convert" in cold
    warm = prepare_in_a_fresh_process(checkpoint, WIDE)
    assert warm.splitlines() == ["imported:", "stages:"]


def test_another_input_size_of_a_checkpoint_is_converted_too(cache: Path, checkpoint: Path) -> None:
    assert stages(checkpoint, WIDE)
    assert stages(checkpoint, UPRIGHT)
    upright = prepare_model(checkpoint, UPRIGHT, IMGSZ, no_progress)
    assert upright.input_wh == (96, 160)
    assert [head.shape[:2] for head in heads_of(upright)] == [(20, 12), (10, 6), (5, 3)]


def test_another_checkpoint_under_the_same_name_is_converted_anew(
    cache: Path, checkpoint: Path
) -> None:
    prepare_model(checkpoint, WIDE, IMGSZ, no_progress)
    save(checkpoint, three_convolutions(7))
    assert prepare_model(checkpoint, WIDE, IMGSZ, no_progress).head.class_names == tuple(
        class_names(7).values()
    )


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def scribble(path: Path) -> None:
    path.write_bytes(b"\x00\xff" * 200)


@pytest.mark.parametrize("damage", [truncate, empty, scribble, Path.unlink])
@pytest.mark.parametrize("pattern", ["160x96.xml", "160x96.bin"])
def test_a_damaged_converted_model_is_rebuilt(
    cache: Path, checkpoint: Path, pattern: str, damage: Callable[[Path], None]
) -> None:
    expected = heads_of(prepare_model(checkpoint, WIDE, IMGSZ, no_progress))
    damage(only(cache, pattern))
    assert stages(checkpoint)
    assert stages(checkpoint) == []
    found = heads_of(prepare_model(checkpoint, WIDE, IMGSZ, no_progress))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("damage", [truncate, empty, scribble])
def test_a_damaged_compiled_model_is_compiled_again(
    cache: Path, checkpoint: Path, damage: Callable[[Path], None]
) -> None:
    prepared = prepare_model(checkpoint, WIDE, IMGSZ, no_progress)
    expected = heads_of(prepared)
    for blob in prepared.compiled_cache_dir.rglob("*.blob"):
        damage(blob)
    for a, b in zip(heads_of(prepared), expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_nothing_half_written_is_left_in_the_cache(cache: Path, checkpoint: Path) -> None:
    prepare_model(checkpoint, WIDE, IMGSZ, no_progress)
    assert sorted(path.name for path in only(cache, "160x96.xml").parent.iterdir()) == [
        "160x96.bin",
        "160x96.npz",
        "160x96.xml",
        "160x96.xml.seal",
        "any_size.bin",
        "any_size.xml",
        "any_size.xml.seal",
    ]


def test_for_frames_of_another_size_a_checkpoint_is_not_read_again(
    cache: Path, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = heads_of(prepare_model(checkpoint, UPRIGHT, IMGSZ, no_progress))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "another"))
    prepare_model(checkpoint, WIDE, IMGSZ, no_progress)

    def reads(*_: object, **__: object) -> None:
        raise AssertionError

    with monkeypatch.context() as patched:
        patched.setattr("pipeline.model.prepare.build_graph", reads)
        found = heads_of(prepare_model(checkpoint, UPRIGHT, IMGSZ, no_progress))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("damage", [truncate, empty, scribble, Path.unlink])
@pytest.mark.parametrize("name", ["any_size.xml", "any_size.bin", "any_size.xml.seal"])
def test_a_damaged_graph_for_any_size_is_rebuilt(
    cache: Path, checkpoint: Path, name: str, damage: Callable[[Path], None]
) -> None:
    prepare_model(checkpoint, WIDE, IMGSZ, no_progress)
    damage(only(cache, name))
    found = heads_of(prepare_model(checkpoint, UPRIGHT, IMGSZ, no_progress))
    assert is_whole(only(cache, "any_size.xml"))
    shutil.rmtree(cache)
    expected = heads_of(prepare_model(checkpoint, UPRIGHT, IMGSZ, no_progress))
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_onnx_of_yolov5s_export_gives_the_same_detections_as_its_checkpoint(
    cache: Path, tmp_path: Path, checkpoint: Path
) -> None:
    raw = three_convolutions(3)
    exported = write_onnx(tmp_path / "yolo.onnx", Decoded(raw), dynamic=True, names=class_names(3))
    from_onnx = prepare_model(exported, WIDE, IMGSZ, no_progress)
    from_checkpoint = prepare_model(checkpoint, WIDE, IMGSZ, no_progress)
    assert from_onnx.input_wh == (160, 96)
    assert from_onnx.head.class_names == from_checkpoint.head.class_names
    np.testing.assert_allclose(layout_of(from_onnx).anchors_px, ANCHORS_PX, rtol=1e-3)
    found, expected = detections_of(from_onnx), detections_of(from_checkpoint)
    assert len(expected) > 5
    np.testing.assert_array_equal(found.class_id, expected.class_id)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4)
    np.testing.assert_allclose(found.xyxy, expected.xyxy, atol=0.2)
    assert stages(exported) == []


def test_an_onnx_of_fixed_input_size_keeps_it(cache: Path, tmp_path: Path) -> None:
    exported = write_onnx(
        tmp_path / "yolo.onnx", Decoded(three_convolutions(3)), names=class_names(3)
    )
    for source_wh in (WIDE, UPRIGHT):
        prepared = prepare_model(exported, source_wh, 640, no_progress)
        assert prepared.input_wh == (320, 320)
        assert list(prepared.model.input().shape) == [1, 320, 320, 3]
        assert [head.shape for head in heads_of(prepared)] == [
            (40, 40, 24),
            (20, 20, 24),
            (10, 10, 24),
        ]
    again = prepare_model(exported, WIDE, 640, no_progress)
    assert again.input_wh == (320, 320)


def test_an_onnx_without_class_names_counts_its_classes(cache: Path, tmp_path: Path) -> None:
    exported = write_onnx(tmp_path / "yolo.onnx", Decoded(three_convolutions(3)))
    assert prepare_model(exported, WIDE, 640, no_progress).head.class_names == ("0", "1", "2")


@pytest.mark.parametrize("names", ["not a dict", "{0: 'a'", "['a', 'b', 'c']", "{0: 'a', 1: 'b'}"])
def test_class_names_that_cannot_be_read_are_replaced_by_numbers(
    cache: Path, tmp_path: Path, names: str
) -> None:
    exported = write_onnx(tmp_path / "yolo.onnx", Decoded(three_convolutions(3)), names={})
    model = onnx.load(exported)
    model.metadata_props[1].value = names
    onnx.save(model, exported)
    prepared = prepare_model(exported, WIDE, 640, no_progress)
    assert prepared.head.class_names in (("0", "1", "2"), ("a", "b", "c"))


def test_an_ir_made_here_is_taken_as_it_is(cache: Path, tiny_weights: Path) -> None:
    prepared = prepare_model(tiny_weights, WIDE, 640, no_progress)
    assert prepared.input_wh == TINY_INPUT_WH
    assert layout_of(prepared) == TINY_LAYOUT


def save_ir(path: Path, model: ov.Model) -> None:
    ov.save_model(model, path, compress_to_fp16=False)


def unrelated_ir(path: Path) -> None:
    image = ops.parameter([1, 3, 64, 64], np.float32)
    save_ir(path, ov.Model([ops.relu(image)], [image], "unrelated"))


def ir_without_layout(path: Path) -> None:
    model = light_detector()
    save_ir(path, ov.Model(model.outputs, model.get_parameters(), "heads"))


def ir_with_a_broken_layout(path: Path) -> None:
    model = light_detector()
    model.set_rt_info("{broken", ["pipeline", "head_layout"])
    save_ir(path, model)


def ir_without_its_weights(path: Path) -> None:
    save_ir(path, light_detector())
    path.with_suffix(".bin").unlink()


def ir_of_any_rank(path: Path) -> None:
    image = ops.parameter(ov.PartialShape.dynamic(), np.float32)
    save_ir(path, ov.Model([ops.relu(image)], [image], "any"))


def two_inputs(path: Path) -> None:
    a, b = (ops.parameter([1, 3, 64, 64], np.float32) for _ in range(2))
    save_ir(path, ov.Model([ops.add(a, b)], [a, b], "two"))


def like_yolov8(path: Path) -> None:
    write_onnx(path, LikeYOLOv8(), side=640)


def classifier(path: Path) -> None:
    write_onnx(path, Convolution(1000, lambda x: x.mean((2, 3))))


def picture_to_picture(path: Path) -> None:
    write_onnx(path, Convolution(3, lambda x: x))


def a_list_of_boxes_of_unknown_width(path: Path) -> None:
    write_onnx(path, Convolution(24, lambda x: x.flatten(2)), dynamic=True)


def box_equations_of_another(path: Path) -> None:
    write_onnx(path, Decoded(three_convolutions(3), sizes_by="exp"))


def with_masks(path: Path) -> None:
    write_onnx(path, WithMasks(), names=class_names(3))


def garbage(path: Path) -> None:
    path.write_bytes(b"\x08\x07\x12garbage" * 50)


def nothing(path: Path) -> None:
    path.write_bytes(b"")


WRONG_MODELS: list[tuple[str, Callable[[Path], None]]] = [
    (".xml", unrelated_ir),
    (".xml", ir_without_layout),
    (".xml", ir_with_a_broken_layout),
    (".xml", ir_without_its_weights),
    (".xml", ir_of_any_rank),
    (".xml", two_inputs),
    (".onnx", like_yolov8),
    (".onnx", classifier),
    (".onnx", picture_to_picture),
    (".onnx", a_list_of_boxes_of_unknown_width),
    (".onnx", box_equations_of_another),
    (".onnx", with_masks),
    (".onnx", garbage),
    (".onnx", nothing),
    (".xml", garbage),
    (".pt", garbage),
]


@pytest.mark.parametrize(
    ("suffix", "make"), WRONG_MODELS, ids=[f"{make.__name__}{end}" for end, make in WRONG_MODELS]
)
def test_what_is_no_yolov5_detection_model_is_refused_in_one_line(
    cache: Path, tmp_path: Path, suffix: str, make: Callable[[Path], None]
) -> None:
    path = tmp_path / f"model{suffix}"
    make(path)
    for _ in range(2):
        with pytest.raises(ModelError, match=re.escape(path.name)) as caught:
            prepare_model(path, WIDE, 640, no_progress)
        assert "\n" not in str(caught.value)
    assert list(cache.rglob("*.xml")) == []


@pytest.mark.parametrize("name", ["model.pth", "model.engine", "model"])
def test_a_suffix_that_is_not_known_is_refused_with_those_that_are(
    cache: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(ModelError, match=re.escape(f"{name}: expected a model file ending in .pt")):
        prepare_model(tmp_path / name, WIDE, 640, no_progress)


def test_of_the_heads_only_what_every_cell_needs_stays_in_the_graph(
    cache: Path, tmp_path: Path
) -> None:
    prepared = prepare_model(save(tmp_path / "model.pt", small_yolov5(2)), WIDE, IMGSZ, no_progress)
    assert [list(output.shape) for output in prepared.model.outputs] == [
        [1, 96 // stride, 160 // stride, channels] for stride in (8, 16, 32) for channels in (3, 16)
    ]
    assert [entry.weight.shape for entry in yolov5_head(prepared).convolutions] == [(3, 7, 16)] * 3


@pytest.mark.parametrize("fault", ["gone", "cut off", "garbage"])
def test_what_belongs_to_a_converted_graph_is_made_again_if_it_is_damaged(
    cache: Path, tmp_path: Path, fault: str
) -> None:
    weights = save(tmp_path / "model.pt", small_yolov5(2))
    expected = detections_of(prepare_model(weights, WIDE, IMGSZ, no_progress))
    damaged = only(cache, "*.npz")
    if fault == "gone":
        damaged.unlink()
    else:
        content = damaged.read_bytes()
        damaged.write_bytes(content[: len(content) // 2] if fault == "cut off" else b"garbage")
    found = detections_of(prepare_model(weights, WIDE, IMGSZ, no_progress))
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    assert damaged.is_file()


def test_a_converted_graph_can_be_given_and_needs_what_belongs_to_it(
    cache: Path, tmp_path: Path
) -> None:
    weights = save(tmp_path / "model.pt", small_yolov5(2))
    expected = detections_of(prepare_model(weights, WIDE, IMGSZ, no_progress))
    given = tmp_path / "given"
    given.mkdir()
    for path in only(cache, "160x96.xml").parent.glob("160x96.*"):
        shutil.copy(path, given)
    found = detections_of(prepare_model(given / "160x96.xml", WIDE, IMGSZ, no_progress))
    np.testing.assert_array_equal(found.xyxy, expected.xyxy)
    (given / "160x96.npz").unlink()
    shutil.rmtree(cache)
    with pytest.raises(ModelError, match=r"160x96\.npz, which belongs to it"):
        prepare_model(given / "160x96.xml", WIDE, IMGSZ, no_progress)


@needs_checkpoint
def test_the_official_checkpoint_takes_batches_and_other_shapes(cache: Path) -> None:
    prepared = prepare_model(CHECKPOINT, WIDE, IMGSZ, no_progress)
    for model in (with_batch(prepared.model, 3), reshaped(prepared.model, [1, 64, 128, 3])):
        count, height, width, _ = model.input().shape
        assert [list(output.shape[:3]) for output in model.outputs[::2]] == [
            [count, height // stride, width // stride] for stride in (8, 16, 32)
        ]


def test_a_graph_with_fixed_sizes_inside_is_refused_in_batches(cache: Path, tmp_path: Path) -> None:
    image = ops.parameter([1, 64, 64, 3], np.uint8)
    fixed = ops.reshape(ops.convert(image, "f32"), np.array([1, 8, 8, 192]), False)
    with pytest.raises(ModelError, match="exported with fixed sizes inside") as caught:
        with_batch(ov.Model([fixed], [image], "fixed"), 2)
    assert "\n" not in str(caught.value)
