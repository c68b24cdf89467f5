"""Heads of other families and with other levels, from the file of a model to boxes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
import torch
from numpy.typing import NDArray
from openvino import opset13 as ops

from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions, InferOptions
from pipeline.core.progress import no_progress
from pipeline.inference.engine import Pool
from pipeline.inference.openvino import load_engine
from pipeline.model.heads import Head
from pipeline.model.last_layers import convolutions_before
from pipeline.model.letterbox import letterbox
from pipeline.model.postprocess import detections_from
from pipeline.model.prepare import PreparedModel, prepare_model
from pipeline.model.yolov5 import YOLOv5Head
from tests.checkpoints import ANCHORS_PX, Decoded, save, three_convolutions, write_onnx
from tests.conftest import (
    TINY_INPUT_WH,
    gray,
    noise,
    prepared_light_detector,
    process,
    read_detections,
    whole_heads,
    write_clip,
    yolov5_head,
)
from tests.double_heads import DistancesHead

P6 = (8, 16, 32, 64)
WIDE = (320, 180)
DETECT = DetectOptions(confidence_threshold=0.3, iou_threshold=0.45, max_detections=40)


def outputs_of(prepared: PreparedModel, picture: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
    """What the model gives for one picture, (height, width, 3)."""
    found: list[list[NDArray[np.float32]]] = []
    errors: list[BaseException] = []

    def keep(_: int, outputs: Sequence[NDArray[np.float32]], __: float) -> None:
        found.append([output.copy() for output in outputs])

    pool: Pool[int]
    with (
        load_engine(prepared, InferOptions(precision="f32")) as engine,
        engine.open_pool(keep, errors.append) as pool,
    ):
        pool.next_input()[:] = picture
        pool.submit(0)
        pool.drain()
    assert errors == []
    return found[0]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def p6_checkpoint(tmp_path: Path) -> Path:
    return save(tmp_path / "p6.pt", three_convolutions(3, P6))


def test_a_model_of_four_levels_takes_input_in_multiples_of_its_largest_stride(
    cache: None, p6_checkpoint: Path
) -> None:
    for _ in ("converted", "from the cache"):
        prepared = prepare_model(p6_checkpoint, WIDE, 320, no_progress)
        assert prepared.head.strides == P6
        assert prepared.input_wh == (320, 192)
        assert prepare_model(p6_checkpoint, (320, 200), 320, no_progress).input_wh == (320, 256)


@pytest.mark.parametrize(("imgsz", "side"), [(96, 128), (128, None), (160, 192)])
def test_a_run_says_that_its_input_is_larger_than_was_asked_for(
    cache: None, tmp_path: Path, p6_checkpoint: Path, imgsz: int, side: int | None
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(0, WIDE)])
    for out in ("first", "from the cache"):
        report = process(clip, tmp_path / out, p6_checkpoint, imgsz=imgsz)
        assert max(report["configuration"]["input_shape"]) == (side or imgsz)
        notes = [note for note in report["output"]["notes"] if note.startswith("--imgsz")]
        assert [f"rounded up to {side}" in note for note in notes] == [True] * bool(side)


def test_a_model_of_four_levels_gives_the_heads_of_the_checkpoint(
    cache: None, p6_checkpoint: Path
) -> None:
    prepared = prepare_model(p6_checkpoint, WIDE, 320, no_progress)
    picture = noise(prepared.input_wh)
    with torch.no_grad():
        images = torch.from_numpy(picture)[None].permute(0, 3, 1, 2) / 255
        expected = [head[0].permute(1, 2, 0).numpy() for head in three_convolutions(3, P6)(images)]
    outputs = outputs_of(prepared, picture)
    found = whole_heads(prepared, outputs)
    assert len(found) == len(expected) == 4
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)
    # The predictions in two parts give the boxes of whole ones.
    box = letterbox(WIDE, prepared.input_wh)
    whole = YOLOv5Head(yolov5_head(prepared).layout)
    boxes = [
        detections_from(head, head.select(heads, 0.3), box, DETECT)
        for head, heads in ((prepared.head, outputs), (whole, expected))
    ]
    assert len(boxes[0]) > 0
    np.testing.assert_allclose(boxes[0].xyxy, boxes[1].xyxy, atol=0.1)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("dynamic", [True, False])
def test_an_export_of_four_levels_is_taken_with_its_anchors(
    cache: None, tmp_path: Path, p6_checkpoint: Path, dynamic: bool
) -> None:
    exported = write_onnx(
        tmp_path / "p6.onnx", Decoded(three_convolutions(3, P6), strides=P6), dynamic=dynamic
    )
    prepared = prepare_model(exported, WIDE, 320, no_progress)
    layout = yolov5_head(prepared).layout
    assert layout.strides == P6
    np.testing.assert_allclose(layout.anchors_px, (*ANCHORS_PX, ANCHORS_PX[2]), rtol=1e-3)
    assert prepared.input_wh == ((320, 192) if dynamic else (320, 320))
    if dynamic:
        same = prepare_model(p6_checkpoint, WIDE, 320, no_progress)
        picture = noise(prepared.input_wh)
        for a, b in zip(outputs_of(prepared, picture), outputs_of(same, picture), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3)


def test_a_run_with_a_model_of_four_levels_finds_what_pytorch_finds(
    cache: None, tmp_path: Path, p6_checkpoint: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [noise((160, 96)) // (i + 1) for i in range(4)])
    found = []
    for options in (InferOptions(precision="f32"), InferOptions(engine="pytorch")):
        out = tmp_path / options.engine
        process(clip, out, p6_checkpoint, imgsz=160, infer=options)
        found.append(read_detections(out))
    assert sum(len(line["detections"]) for line in found[0]) > 0
    for ours, theirs in zip(*found, strict=True):
        assert len(ours["detections"]) == len(theirs["detections"])
        for a, b in zip(ours["detections"], theirs["detections"], strict=True):
            assert a["class_id"] == b["class_id"]
            np.testing.assert_allclose(a["xyxy"], b["xyxy"], atol=0.2)


def prepared_with(head: DistancesHead, folder: Path) -> PreparedModel:
    """A graph for the head: the score of class 0 is the brightness, boxes are 2 cells wide."""
    width, height = TINY_INPUT_WH
    image = ops.parameter([1, height, width, 3], np.uint8, name="images")
    scaled = ops.multiply(ops.convert(image, "f32"), np.float32(1 / 255))
    nchw = ops.transpose(scaled, np.array([0, 3, 1, 2]))
    outputs = []
    for stride in head.strides:
        kernel = np.zeros((6, 3, stride, stride), np.float32)
        kernel[4] = 1 / (3 * stride * stride)
        kernel[5] = 0.5 / (3 * stride * stride)
        bias = np.array([1, 1, 1, 1, 0, 0], np.float32).reshape(1, 6, 1, 1)
        conv = ops.convolution(nchw, kernel, [stride] * 2, [0, 0], [0, 0], [1, 1])
        outputs.append(ops.transpose(ops.add(conv, bias), np.array([0, 2, 3, 1])))
    return dataclasses.replace(
        prepared_light_detector(folder), model=ov.Model(outputs, [image], "distances"), head=head
    )


def found_by(head: Head, tmp_path: Path, **options: Any) -> Detections:
    """The boxes on a picture with two bright cells beside each other."""
    assert isinstance(head, DistancesHead)
    prepared = prepared_with(head, tmp_path)
    picture = gray(0)
    picture[40:48, 64:80] = 255
    outputs = outputs_of(prepared, picture)
    candidates = prepared.head.select(outputs, DETECT.confidence_threshold)
    box = letterbox(TINY_INPUT_WH, prepared.input_wh)
    return detections_from(prepared.head, candidates, box, DETECT, **options)


def test_a_head_without_anchors_flows_through_engine_and_postprocess(tmp_path: Path) -> None:
    found = found_by(DistancesHead(), tmp_path)
    # Two cells of stride 8, whose boxes overlap by a third, and the cell of stride 16 around them.
    assert sorted(map(tuple, found.xyxy.tolist())) == [
        (56.0, 24.0, 88.0, 56.0),
        (60.0, 36.0, 76.0, 52.0),
        (68.0, 36.0, 84.0, 52.0),
    ]
    np.testing.assert_allclose(found.confidence, [1, 1, 0.5], atol=1e-2)
    assert found.class_id.tolist() == [0, 0, 0]


def test_boxes_of_a_head_that_needs_no_nms_are_all_kept(tmp_path: Path) -> None:
    few = dataclasses.replace(DETECT, iou_threshold=0.1)
    # Without NMS, two of the three boxes also stand for their second class.
    for needs_nms, number in ((True, 1), (False, 5)):
        head = DistancesHead(needs_nms=needs_nms)
        prepared = prepared_with(head, tmp_path)
        picture = gray(0)
        picture[40:48, 64:80] = 255
        candidates = head.select(outputs_of(prepared, picture), 0.3)
        box = letterbox(TINY_INPUT_WH, prepared.input_wh)
        assert len(detections_from(head, candidates, box, few)) == number


def test_a_box_of_a_head_counts_for_each_class_that_passes(tmp_path: Path) -> None:
    found = found_by(DistancesHead(), tmp_path, multi_label=True)
    assert sorted(found.class_id.tolist()) == [0, 0, 0, 1, 1]
    kept = found_by(DistancesHead(), tmp_path, class_ids=frozenset({1}), multi_label=True)
    assert kept.class_id.tolist() == [1, 1]


def test_the_last_convolutions_of_a_branch_are_found_on_the_shortest_way() -> None:
    def convolution(name: str, entry: ov.Node) -> ov.Node:
        weights = ops.constant(np.ones((4, 4, 1, 1), np.float32))
        zeros = [0, 0]
        found = ops.convolution(entry, weights, [1, 1], zeros, zeros, [1, 1])
        found.set_friendly_name(name)
        return found

    pixels = ops.parameter([1, 4, 8, 8], np.float32)
    first = convolution("first", pixels)
    second = convolution("second", ops.relu(first))
    third = convolution("third", ops.relu(second))
    last = convolution("last", ops.add(third, first))
    model = ov.Model([ops.result(last)], [pixels])
    found = [convolutions_before(model.output(0), depth) for depth in (1, 2, 3)]
    assert found == [{"last"}, {"last", "third", "first"}, {"last", "third", "first", "second"}]
