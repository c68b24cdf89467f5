"""Graphs as exporters write them, whole runs: cut at their raw heads, decoded, with NMS inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from openvino import Node
from openvino import opset13 as ops

from pipeline.core.config import DetectOptions
from pipeline.core.errors import UsageError
from pipeline.core.notes import collected_notes
from pipeline.core.progress import no_progress
from pipeline.measure.evaluate import evaluate
from pipeline.model.described import describe_model
from tests.conftest import TINY_INPUT_WH, process, read_detections, with_light, write_clip
from tests.resuming import KEYS
from tests.test_evaluate import make_data

NAMES = ("light", "shade")
STRIDES = (8, 16, 32)
CELLS = [(3, 2), (9, 7), (12, 10), (5, 5)]
"""The 8x8 cells that are bright, one after the other."""


def convolution(image: Node, stride: int, kernel: float, bias: list[float]) -> Node:
    """Of the mean brightness, an output for each bias; `kernel` is the weight of the first."""
    weights = np.zeros((len(bias), 3, stride, stride), np.float32)
    weights[0] = kernel / (3 * stride * stride)
    conv = ops.convolution(image, weights, [stride] * 2, [0, 0], [0, 0], [1, 1])
    return ops.add(conv, np.array(bias, np.float32).reshape(1, -1, 1, 1))


def flat(levels: list[Node]) -> Node:
    return ops.concat([ops.reshape(x, [0, 0, -1], special_zero=True) for x in levels], 2)


def decoded(image: Node) -> Node:
    """(1, 4 + classes, cells), as YOLOv8 is exported: "light" in each bright 8x8 cell."""
    width, height = TINY_INPUT_WH
    boxes = flat([convolution(image, s, 0.0, [0.5] * 4) for s in STRIDES])
    scores = flat([convolution(image, s, 40.0 if s == 8 else 0.0, [-20.0, -20.0]) for s in STRIDES])
    centres = np.concatenate(
        [
            np.stack((x.ravel() + 0.5, y.ravel() + 0.5, np.full(x.size, stride)))
            for stride in STRIDES
            for y, x in [np.indices((height // stride, width // stride))]
        ],
        axis=1,
    ).astype(np.float32)[None]
    first, second = ops.split(boxes, np.array(1), 2).outputs()
    low, high = ops.subtract(centres[:, :2], first), ops.add(centres[:, :2], second)
    xywh = ops.concat([ops.divide(ops.add(low, high), np.float32(2)), ops.subtract(high, low)], 1)
    return ops.concat([ops.multiply(xywh, centres[:, 2:]), ops.sigmoid(scores)], 1)


def final(image: Node) -> Node:
    """(1, boxes, 6), xyxy, confidence and class of the best cells."""
    rows = ops.transpose(decoded(image), np.array([0, 2, 1]))
    centre, size, scores = ops.variadic_split(rows, np.array(2), np.array([2, 2, 2])).outputs()
    half = ops.divide(size, np.float32(2))
    best = ops.topk(scores, np.array(1), 2, "max", "none")
    confidence, class_id = best.output(0), ops.convert(best.output(1), "f32")
    corners = [ops.subtract(centre, half), ops.add(centre, half)]
    of_all = ops.concat([*corners, confidence, class_id], 2)
    best_cells = ops.topk(ops.squeeze(confidence, np.array([2])), np.array(20), 1, "max", "value")
    return ops.gather(of_all, ops.squeeze(best_cells.output(1), np.array([0])), np.array(1))


def not_to_be_cut(form: Callable[[Node], Node]) -> Callable[[Node], Node]:
    """The same output behind one more convolution, so that raw heads are not the last ones."""

    def build(image: Node) -> Node:
        value, one = ops.unsqueeze(form(image), np.array(1)), np.ones((1, 1, 1, 1), np.float32)
        same = ops.convolution(value, one, [1, 1], [0, 0], [0, 0], [1, 1])
        return ops.squeeze(same, np.array([1]))

    return build


FORMS = {
    "raw": decoded,
    "decoded": not_to_be_cut(decoded),
    "best": final,
    "final": not_to_be_cut(final),
}


def write_export(form: str, folder: Path) -> Path:
    """The folder that an exporter would leave."""
    width, height = TINY_INPUT_WH
    image = ops.parameter([1, 3, height, width], np.float32, name="images")
    folder.mkdir()
    model = ov.Model([FORMS[form](image)], [image], form)
    ov.save_model(model, folder / "model.xml", compress_to_fp16=False)
    names = dict(enumerate(NAMES))
    (folder / "metadata.yaml").write_text(
        f"task: detect\nstride: 32\nimgsz: [{height}, {width}]\nnames: {names}\n"
    )
    return folder


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of each form."""
    folder = tmp_path_factory.mktemp("exports")
    return {form: write_export(form, folder / form) for form in FORMS}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, [with_light(CELLS[i // 10]) for i in range(40)], options=KEYS)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_export_gives_the_same_boxes(
    form: str, exports: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    facts = describe_model(exports[form] / "model.xml", no_progress)
    assert facts.raw_heads == (form in ("raw", "best"))
    assert facts.needs_nms == (form in ("raw", "decoded"))
    with collected_notes() as notes:
        process(clip, tmp_path, exports[form], video=False, imgsz=128)
    assert any("raw heads were not found" in note for note in notes) == (not facts.raw_heads)
    for index, line in enumerate(read_detections(tmp_path)):
        (box,) = line["detections"]
        x, y = CELLS[index // 10]
        assert box["class_name"] == "light"
        np.testing.assert_allclose(box["xyxy"], [x * 8, y * 8, x * 8 + 8, y * 8 + 8], atol=0.01)


@pytest.mark.parametrize("form", ["best", "final"])
def test_an_export_without_need_of_nms_refuses_its_options(
    form: str, exports: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"^--iou is an option of NMS"):
        process(clip, tmp_path, exports[form], detect=DetectOptions(iou_threshold=0.45))


def test_an_export_with_nms_refuses_to_be_taken_for_one_without(
    exports: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"^--nms-free: model\.xml has no branch"):
        process(clip, tmp_path, exports["raw"], nms_free=True)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_export_can_be_evaluated(
    form: str, exports: dict[str, Path], tmp_path: Path
) -> None:
    result = evaluate(make_data(tmp_path / "data"), weights=exports[form], imgsz=128)
    assert [found.map_50 for found in result.accuracy.values()] == [1.0]


def test_segments_side_by_side_give_the_same_with_a_graph_that_is_not_cut(
    exports: dict[str, Path], clip: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        process(
            clip,
            tmp_path / str(number),
            exports["final"],
            segments_at_once=number,
            segment_seconds=0.4,
        )
    for name in ("detections.jsonl", "annotated.mp4"):
        first, second = ((tmp_path / n / name).read_bytes() for n in ("1", "2"))
        assert first == second
