"""One export in each form that is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import openvino as ov
from openvino import Node
from openvino import opset13 as ops

from tests.conftest import TINY_INPUT_WH

NAMES = ("light", "shade")


STRIDES = (8, 16, 32)


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
