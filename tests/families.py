"""Models of every family with random weights, as ultralytics builds, saves and exports them."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray
from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder
from torch import Tensor, nn

import pipeline.model.pytorch  # noqa: F401  Before ultralytics: it sets where that writes.
from pipeline.core.agreement import Agreement, agreement
from pipeline.core.boxes import Detections
from pipeline.core.config import DetectOptions
from pipeline.model.heads import Head
from pipeline.model.letterbox import letterbox
from pipeline.model.postprocess import detections_from
from pipeline.model.pytorch import YOLO

from ultralytics.nn import tasks  # isort: skip
from ultralytics.nn import modules  # isort: skip
from ultralytics.utils import torch_utils  # isort: skip
from ultralytics.utils.nms import non_max_suppression  # isort: skip

ultralytics: Any = tasks  # Which has no types.
ultralytics_modules: Any = modules
ultralytics_torch: Any = torch_utils

NAMES = {0: "cat", 1: "dog", 2: "tall ship"}
SMALL, DEEP = [0.34, 0.125, 1024], [0.67, 0.125, 1024]
"""Depth, width and most channels of models that have all kinds of layers."""


def random_model(
    config: str,
    *,
    names: dict[int, str] = NAMES,
    scale: list[float] | None = None,
    images: Tensor | None = None,
) -> Any:
    """A model of one of ultralytics' configurations, in evaluation mode.

    Its batch statistics are those of images (N, 3, height, width), by default of noise, so that
    values neither vanish nor explode, and the biases of its classes let some cells pass a
    threshold. scale: depth, width, most channels.
    """
    torch.manual_seed(0)
    content = ultralytics.yaml_model_load(config)
    if scale is not None:
        content["scales"] = {content["scale"]: scale}
    model = ultralytics.DetectionModel(content, ch=3, nc=len(names), verbose=False)
    model.names = names
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # The mean of all batches.
            module.reset_running_stats()
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
    with torch.no_grad():
        model.train()(torch.rand(2, 3, 128, 128) if images is None else images)
        seen = torch.rand(1, 3, 128, 128) if images is None else images
        _spread_heads(model.eval().requires_grad_(False), seen)
    model.end2end = False  # As `yolo predict` has it unless asked otherwise.
    return model


def _spread_heads(model: Any, images: Tensor) -> None:
    """Make distances of some cells and probabilities from 0.001 to 0.9 of what the heads give."""
    seen: dict[nn.Module, Tensor] = {}
    detect = model.model[-1]
    names = [name for name in dict(detect.named_children()) if name.endswith(("cv2", "cv3"))]
    lasts = [level[-1] for name in names for level in getattr(detect, name)]
    hooks = [last.register_forward_hook(lambda m, _, y: seen.update({m: y})) for last in lasts]
    model(images)
    for hook, last in zip(hooks, lasts, strict=True):
        hook.remove()
        last.weight *= 1.5 / (seen[last] - last.bias.view(1, -1, 1, 1)).std()
        is_of_classes = last.out_channels == detect.nc
        nn.init.normal_(last.bias, -2.5 if is_of_classes else 1.0, 0.5)


def checkpoint_of(model: Any, path: Path) -> Path:
    """The file that ultralytics' trainer would leave."""
    torch.save({"model": None, "ema": copy.deepcopy(model).half(), "epoch": -1}, path)
    return path


def exported(
    model: Any, folder: Path, side: int, *, dynamic: bool = False, **metadata: Any
) -> Path:
    """The folder that ultralytics' exporter would leave: IR and metadata.yaml."""
    image = torch.zeros(1, 3, side, side)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exporting = _exporting(model, dynamic)
        exporting(image)  # The centres of the cells are made for the first picture.
        # Three checks of the trace would take longer than all else; tests compare its outputs.
        traced = TorchScriptPythonDecoder(
            exporting, example_input=image, trace_kwargs={"check_trace": False}
        )
        graph = ov.convert_model(
            traced, input=None if dynamic else [image.shape], example_input=image
        )
    folder.mkdir()
    ov.save_model(graph, folder / "model.xml", compress_to_fp16=False)
    content = {"stride": 32, "task": "detect", "imgsz": [side, side], "names": model.names}
    lines = (f"{key}: {value!r}\n" for key, value in {**content, **metadata}.items())
    (folder / "metadata.yaml").write_text("".join(lines))
    return folder / "model.xml"


def _exporting(model: Any, dynamic: bool) -> Any:
    exporting = copy.deepcopy(model).fuse(verbose=False).float()
    exporting.model[-1].export = True
    exporting.model[-1].dynamic = dynamic
    return exporting


def folded(model: Any) -> Any:
    """A copy, each batch normalisation folded into its convolution; nothing else is fused."""
    model = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, ultralytics_modules.Conv):
            module.conv = ultralytics_torch.fuse_conv_and_bn(module.conv, module.bn)
            del module.bn
            module.forward = module.forward_fuse
    return model


def images_of(picture: NDArray[np.uint8], dtype: torch.dtype = torch.float32) -> Tensor:
    """(1, 3, height, width), RGB in 0..1, of a picture (height, width, 3)."""
    return torch.from_numpy(picture)[None].permute(0, 3, 1, 2).to(dtype) / 255


def decoded_by_ultralytics(
    model: Any, picture: NDArray[np.uint8]
) -> tuple[NDArray[np.floating[Any]], NDArray[np.floating[Any]]]:
    """What the original modules make of a picture (height, width, 3), before NMS or its like.

    xyxy (N, 4) and class scores (N, classes) of every cell, in the type of the model.
    """
    detect = model.model[-1]
    with torch.no_grad():
        raw = model(images_of(picture, next(model.parameters()).dtype))[1]
        if "one2one" in raw:
            raw = raw["one2one" if detect.end2end else "one2many"]
        decoded = detect._inference(raw)[0].numpy().T
    boxes, scores = decoded[:, :4], decoded[:, 4:]
    if not detect.end2end:
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        boxes = np.hstack((centre - half, centre + half))
    return boxes, scores


def agreement_after_nms(
    model: Any, head: Head, outputs: list[NDArray[np.float32]], picture: NDArray[np.uint8]
) -> Agreement:
    """The boxes of a picture (height, width, 3) from raw heads, and those of the original program.

    The threshold passes about a hundred cells; nearer to it than 0.02, boxes may come and go.
    """
    _, scores = decoded_by_ultralytics(model, picture)
    threshold = float(np.sort(scores.max(axis=1))[-100:][0])
    detect = DetectOptions(
        confidence_threshold=threshold,
        iou_threshold=0.45 if head.needs_nms else None,
        max_detections=300,
    )
    size_wh = (picture.shape[1], picture.shape[0])
    candidates = head.select(outputs, threshold)
    ours = detections_from(head, candidates, letterbox(size_wh, size_wh), detect)
    with torch.no_grad():
        (found,) = non_max_suppression(
            model(images_of(picture))[0], threshold, 0.45, max_det=300, end2end=model.end2end
        )
    values = found.numpy()
    theirs = Detections(values[:, :4].clip(0), values[:, 4], values[:, 5].astype(np.int64))
    theirs.xyxy[:, 0::2] = theirs.xyxy[:, 0::2].clip(0, size_wh[0])
    theirs.xyxy[:, 1::2] = theirs.xyxy[:, 1::2].clip(0, size_wh[1])
    ours, theirs = _with_area(ours), _with_area(theirs)
    return agreement([ours], [theirs], sure_confidence=threshold + 0.02)


def _with_area(boxes: Detections) -> Detections:
    """Those that an IoU is defined for: random distances can be negative, and boxes lie outside."""
    kept = (boxes.xyxy[:, 2:] > boxes.xyxy[:, :2] + 0.5).all(axis=1)
    return Detections(boxes.xyxy[kept], boxes.confidence[kept], boxes.class_id[kept])


def all_boxes(
    head: Head, outputs: list[NDArray[np.float32]]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """xyxy and class scores of every cell."""
    candidates = head.select(outputs, 1e-30)
    assert candidates is not None
    return head.decode(candidates), head.class_scores(candidates)


def raw_heads(model: YOLO, images: Tensor) -> list[NDArray[Any]]:
    """What a baseline makes of (1, 3, height, width), (rows, columns, values) for each output."""
    with torch.no_grad():
        return [output[0].permute(1, 2, 0).numpy() for output in model(images)]


def box_errors(
    found: NDArray[np.floating[Any]], expected: NDArray[np.floating[Any]]
) -> NDArray[np.floating[Any]]:
    """How far boxes are from those expected: 1 is 0.02 pixels, or 1e-4 of the longer side."""
    side = (expected[:, 2:] - expected[:, :2]).max(axis=1)
    most = np.abs(found - expected).max(axis=1)
    errors: NDArray[np.floating[Any]] = most / np.maximum(0.02, 1e-4 * side)
    return errors


def assert_same_boxes(
    found: NDArray[np.floating[Any]], expected: NDArray[np.floating[Any]]
) -> None:
    assert box_errors(found, expected).max() <= 1


EXACTLY = {"INFERENCE_PRECISION_HINT": "f32", "LP_TRANSFORMS_MODE": "NO"}
"""INT8 saturates on processors without VNNI, at values that depend on how layers are fused."""
