"""Reads a checkpoint of YOLO without executing anything in it, and without PyTorch.

Only the layers listed below are supported; everything else is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import ModelError
from pipeline.model.anchor_free import AnchorFreeLayout
from pipeline.model.archive import read_archive
from pipeline.model.convolutions import layers_in_order
from pipeline.model.pickle_machine import Layer
from pipeline.model.stored_tensors import Refused, UnknownClass
from pipeline.model.supported import kind_of_file, require_supported_class
from pipeline.model.weights import require_size
from pipeline.model.yolov5 import STRIDES, HeadLayout

DETECT = "models.yolo.Detect"
YOLOV5_MODELS = frozenset({"models.yolo.Model", "models.yolo.DetectionModel"})
ULTRALYTICS_MODELS = frozenset({"ultralytics.nn.tasks.DetectionModel"})

_PACKAGE = "ultralytics.nn.modules"
_CLASSES: Mapping[str, tuple[str, ...]] = {
    "conv": ("Conv", "DWConv", "RepConv", "Concat"),
    "block": (
        *("Bottleneck", "C2", "C2f", "C3", "C3k", "C3k2", "SPPF", "DFL"),  # v5u, v8, 11
        *("C2PSA", "PSABlock", "Attention"),  # 11, 26
        *("RepBottleneck", "RepCSP", "RepNCSPELAN4", "ELAN1", "AConv", "ADown", "SPPELAN"),  # v9
        *("C2fCIB", "CIB", "RepVGGDW", "PSA", "SCDown"),  # v10
        *("A2C2f", "ABlock", "AAttn"),  # 12
    ),
    "head": ("Detect", "v10Detect"),
}
ULTRALYTICS_DETECTS = frozenset(
    f"{module}.{name}" for name in _CLASSES["head"] for module in (_PACKAGE, f"{_PACKAGE}.head")
)
ULTRALYTICS_LAYERS = frozenset(
    f"{module}.{name}"  # The first releases had all of them in one module.
    for part, names in _CLASSES.items()
    for name in names
    for module in (_PACKAGE, f"{_PACKAGE}.{part}")
)
LAYERS = (
    YOLOV5_MODELS
    | ULTRALYTICS_MODELS
    | ULTRALYTICS_LAYERS
    | {
        DETECT,
        "models.common.Conv",
        "models.common.C3",
        "models.common.SPPF",
        "models.common.Bottleneck",
        "models.common.Concat",
        "torch.nn.modules.batchnorm.BatchNorm2d",
        "torch.nn.modules.conv.Conv2d",
        "torch.nn.modules.pooling.MaxPool2d",
        "torch.nn.modules.container.ModuleList",
        "torch.nn.modules.container.Sequential",
        "torch.nn.modules.activation.SiLU",
        "torch.nn.modules.linear.Identity",
        "torch.nn.modules.upsampling.Upsample",
    }
)
MOST_CHANNELS = 8192

_IGNORED = frozenset(
    {
        "numpy.core.multiarray.scalar",
        "numpy.core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy.ndarray",
        "numpy.dtype",
        "pathlib.PosixPath",
        "pathlib._local.PosixPath",
        "_codecs.encode",
        "torch.Size",
        "torch.device",
        "types.SimpleNamespace",
        "ultralytics.utils.IterableSimpleNamespace",
        "ultralytics.yolo.utils.IterableSimpleNamespace",
    }
)
_MOST_CLASSES, _LONGEST_CLASS_NAME = 10_000, 200
_BRANCH = ("cv3", "cv2")
_MOST_LEVELS, _MOST_BINS, _MOST_STRIDE = 5, 64, 64

CheckpointLayout = HeadLayout | AnchorFreeLayout


def read_checkpoint(path: Path, *, nms_free: bool = False) -> tuple[Layer, CheckpointLayout]:
    """The model of a .pt file as its layers, in float32, and its head layout.

    nms_free: of a model with two branches, the one that needs no NMS. The file is one of YOLOv5
    v6/v7 or of ultralytics. Raises ModelError for a file that is not a checkpoint, needs an unknown
    class, or whose last layer is not that of a detection model.
    """
    require_size(path)
    try:
        content = read_archive(path, LAYERS, _IGNORED)
    except Refused as error:
        if isinstance(error, UnknownClass):
            require_supported_class(error.name, path)
        raise ModelError(f"{path}: refused, nothing in it was executed: {error}") from error
    except Exception as error:  # Arbitrary bytes can make the reader raise any exception.
        reason = kind_of_file(path) or one_line(error)
        raise ModelError(f"{path}: not a PyTorch checkpoint ({reason})") from error
    model = None
    if isinstance(content, dict):
        model = content.get("ema")
        model = content.get("model") if model is None else model
    if not isinstance(model, Layer):
        raise ModelError(f"{path}: contains no YOLO detection model")
    if model.kind in YOLOV5_MODELS:
        return model, _head_layout(path, model)
    if model.kind in ULTRALYTICS_MODELS:
        return model, _anchor_free_layout(path, model, nms_free)
    raise ModelError(f"{path}: contains no YOLO detection model")


def branches(detect: Layer) -> tuple[list[Layer], list[Layer]]:
    """The convolutions of a detection layer of ultralytics for each level: classes, then boxes."""
    classes, boxes = (layers_in_order(detect.children[name]) for name in _BRANCH)
    return classes, boxes


def _keep_one_branch(detect: Layer, nms_free: bool) -> bool:
    """Leave one branch in a detection layer; returns whether it gives one box for each object.

    That one is called one-to-one, was trained beside the other, and is alone once layers are fused.
    """
    one_to_one = {name: detect.children.pop(f"one2one_{name}", None) for name in _BRANCH}
    chosen = {name: layer for name, layer in one_to_one.items() if layer is not None}
    if not chosen or not (nms_free or detect.children.get("cv2") is None):
        return False
    detect.children.update(chosen)
    return True


def one_line(error: BaseException) -> str:
    """An error as part of a one-line message."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _head_layout(path: Path, model: Layer) -> HeadLayout:
    try:
        detect = layers_in_order(model.children["model"])[-1]
        if detect.kind != DETECT:
            raise ModelError(f"{path}: its last layer is not YOLOv5's detection layer")
        heads = layers_in_order(detect.children["m"])
        channels = [head.tensors["weight"].shape[0] for head in heads]
        anchors, stride = detect.tensors["anchors"], _stride(detect)
        if len(heads) > MOST_CHANNELS or anchors.ndim != 3 or anchors.shape[1] > MOST_CHANNELS:
            raise ModelError(f"{path}: its detection layer has {len(heads)} heads")
        strides = tuple(int(value) for value in stride.reshape(len(heads)))
        anchors_px = anchors.astype(np.float32) * stride.astype(np.float32).reshape(-1, 1, 1)
        layout = HeadLayout(
            class_names=_class_names(path, model),
            anchors_px=tuple(tuple((w, h) for w, h in head) for head in anchors_px.tolist()),
            strides=strides,
        )
        expected = layout.num_anchors * layout.num_values
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{path}: its detection layer is incomplete ({one_line(error)})"
        ) from error
    if strides != STRIDES.get(len(heads)) or set(channels) != {expected}:
        raise ModelError(
            f"{path}: expected heads at strides {' or '.join(map(str, STRIDES.values()))} with "
            f"{expected} channels for {layout.num_classes} classes, found strides {strides} with "
            f"{channels}"
        )
    return layout


def _anchor_free_layout(path: Path, model: Layer, nms_free: bool) -> AnchorFreeLayout:
    try:
        detect = layers_in_order(model.children["model"])[-1]
        if detect.kind not in ULTRALYTICS_DETECTS:
            raise ModelError(f"{path}: its last layer is not the detection layer of ultralytics")
        has_nms_free_branch = "one2one_cv2" in detect.children
        is_nms_free = _keep_one_branch(detect, nms_free)
        strides = tuple(int(value) for value in _stride(detect).reshape(-1)[: _MOST_LEVELS + 1])
        bins = detect.settings["reg_max"]
        num_branches = [len(of_levels) for of_levels in branches(detect)]
        names = _class_names(path, model)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise ModelError(
            f"{path}: its detection layer is incomplete ({one_line(error)})"
        ) from error
    if type(bins) is not int or not 1 <= bins <= _MOST_BINS:
        raise ModelError(f"{path}: its detection layer has {bins!r:.50} values for a distance")
    if (
        num_branches != [len(strides)] * 2
        or strides != tuple(strides[0] << level for level in range(len(strides)))
        or not 1 <= len(strides) <= _MOST_LEVELS
        or not 1 <= strides[0] <= strides[-1] <= _MOST_STRIDE
    ):
        raise ModelError(f"{path}: its detection layer has {num_branches} heads at {strides}")
    return AnchorFreeLayout(
        names, strides, bins, needs_nms=not is_nms_free, has_nms_free_branch=has_nms_free_branch
    )


def _stride(detect: Layer) -> Any:
    """A tensor, which is a setting and no buffer in YOLOv5."""
    stride = detect.settings.get("stride", detect.tensors.get("stride"))
    if not isinstance(stride, np.ndarray):
        raise ValueError("it has no strides")
    return stride


def _class_names(path: Path, model: Layer) -> tuple[str, ...]:
    names: Any = model.settings["names"]
    found = tuple(names.values() if isinstance(names, dict) else names)
    if len(found) > _MOST_CLASSES:
        raise ModelError(f"{path}: it has {len(found)} classes, more than {_MOST_CLASSES}")
    if not all(isinstance(name, str) and len(name) <= _LONGEST_CLASS_NAME for name in found):
        raise ModelError(f"{path}: a class name in it is not text or too long")
    return found
