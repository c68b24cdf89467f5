"""Files that are no YOLO detection model are refused in one line that says what they are."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import Node
from openvino import opset13 as ops

from pipeline.cli.commands import main
from pipeline.core.errors import ModelError
from pipeline.core.progress import no_progress
from pipeline.model.prepare import prepare_model
from pipeline.model.weights import find_weights
from tests.conftest import DEMO, needs_demo

SIDE = 64
STRIDES = (8, 16, 32)


def convolution(image: Node, stride: int, channels: int) -> Node:
    kernel = np.full((channels, 3, stride, stride), 0.01, np.float32)
    return ops.convolution(image, kernel, [stride, stride], [0, 0], [0, 0], [1, 1])


def flat(levels: list[Node]) -> Node:
    """(1, channels, cells) of all levels."""
    return ops.concat([ops.reshape(x, [0, 0, -1], special_zero=True) for x in levels], 2)


def branches(image: Node, *channels: int) -> Node:
    """(1, all channels, cells): what branches of each level give, with no layer behind them."""
    return ops.concat([flat([convolution(image, s, n) for s in STRIDES]) for n in channels], 1)


def segment(image: Node) -> list[Node]:
    return [branches(image, 4, 2, 32), convolution(image, 4, 32)]


def pose(image: Node) -> list[Node]:
    return [branches(image, 4, 2, 51)]


def obb(image: Node) -> list[Node]:
    return [branches(image, 4, 15, 1)]


def classify(image: Node) -> list[Node]:
    return [ops.reduce_mean(convolution(image, 32, 10), np.array([2, 3]), keep_dims=False)]


def ssd(image: Node) -> list[Node]:
    boxes, scores = (flat([convolution(image, 8, n)]) for n in (4, 91))
    return [ops.transpose(value, np.array([0, 2, 1])) for value in (boxes, scores)]


def detr(image: Node) -> list[Node]:
    logits, boxes = ssd(image)
    boxes.output(0).set_names({"pred_boxes"})
    return [boxes, logits]


def yolox(image: Node) -> list[Node]:
    return [ops.transpose(branches(image, 4, 1, 80), np.array([0, 2, 1]))]


def depth(image: Node) -> list[Node]:
    return [convolution(image, 2, 1)]


def graph_of(outputs: Callable[[Node], list[Node]], folder: Path) -> Path:
    image = ops.parameter([1, 3, SIDE, SIDE], np.float32, name="images")
    ov.save_model(ov.Model(outputs(image), [image], "other"), folder / "other.xml")
    return folder / "other.xml"


def reason_for(weights: Path) -> str:
    with pytest.raises(ModelError) as caught:
        prepare_model(find_weights(weights, no_progress), (SIDE, SIDE), SIDE, no_progress)
    reason = str(caught.value)
    assert str(weights) in reason
    assert len(reason.splitlines()) == 1
    return reason


@pytest.mark.parametrize("outputs", [segment, pose, obb, classify])
def test_a_graph_for_another_task_is_refused_by_its_name(
    outputs: Callable[[Node], list[Node]], tmp_path: Path
) -> None:
    assert f"the task '{outputs.__name__}'; supported are" in reason_for(
        graph_of(outputs, tmp_path)
    )


def test_the_task_is_taken_from_the_metadata_first(tmp_path: Path) -> None:
    weights = graph_of(depth, tmp_path)
    (tmp_path / "metadata.yaml").write_text("task: semantic\nnames: {0: road}\n")
    assert "the task 'semantic'; supported are" in reason_for(weights)


@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        (ssd, "an SSD or DETR with outputs"),
        (detr, "a DETR with outputs"),
        (yolox, "a YOLOX with the output [1,84,85]"),
        (depth, "not recognised as a YOLO detection model: it has the output [1,1,32,32]"),
    ],
)
def test_a_graph_of_another_family_is_refused_with_what_was_found(
    outputs: Callable[[Node], list[Node]], found: str, tmp_path: Path
) -> None:
    reason = reason_for(graph_of(outputs, tmp_path))
    assert found in reason
    assert "supported are detection models of YOLOv5" in reason


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ultralytics.nn.tasks SegmentationModel", "the task 'segment'; supported are"),
        ("ultralytics.nn.tasks PoseModel", "the task 'pose'; supported are"),
        ("ultralytics.nn.tasks OBBModel", "the task 'obb'; supported are"),
        ("models.yolo ClassificationModel", "the task 'classify'; supported are"),
        ("ultralytics.nn.tasks RTDETRDetectionModel", "an RT-DETR; supported are"),
    ],
)
def test_a_checkpoint_of_another_task_is_refused_by_its_name(
    name: str, found: str, tmp_path: Path
) -> None:
    path = tmp_path / "best.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("best/data.pkl", b"\x80\x02c%b\n." % name.replace(" ", "\n").encode())
    assert found in reason_for(path)


@needs_demo
def test_files_that_are_no_checkpoint_are_refused_with_what_they_are(tmp_path: Path) -> None:
    path, whole = tmp_path / "best.pt", DEMO.read_bytes()
    for content, found in (
        ("Gewichte für später\n".encode(), "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (whole[:100_000], "damaged or incomplete"),
        (whole.replace(b"PK\x01\x02", b"PK\x01\x03", 1), "damaged or incomplete"),
    ):
        path.write_bytes(content)
        assert found in reason_for(path)


def test_a_folder_without_weights_is_refused_by_their_name(tmp_path: Path) -> None:
    graph_of(depth, tmp_path).with_suffix(".bin").unlink()
    assert "other.bin, the weights of other.xml, is not in it" in reason_for(tmp_path)


@needs_demo
def test_models_shows_each_model_and_why_another_cannot_be_used(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["models", "demo", str(tiny_weights), "--json"]) == 0
    demo, tiny = json.loads(capsys.readouterr().out)
    assert (demo["model"], demo["family"], len(demo["class_names"])) == ("demo", "YOLOv5", 10)
    assert demo["input_wh"] is None
    assert 1.7e6 < demo["parameters"] < 1.9e6
    assert demo["paired_convolution"]
    assert demo["can_be_int8"]
    assert (tiny["class_names"], tiny["input_wh"]) == (["light", "shade"], [128, 96])
    assert not tiny["paired_convolution"]
    wrong = graph_of(ssd, tmp_path)
    assert main(["models", str(wrong), "demo"]) == 1
    printed = capsys.readouterr()
    assert f"{wrong}\n  cannot be used: {wrong}: an SSD" in printed.out
    assert "any size, in multiples of 32" in printed.out
    assert len(printed.err.splitlines()) == 1
