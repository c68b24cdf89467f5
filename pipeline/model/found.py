"""What a graph is that is not a YOLO detection model, as its operations and outputs show it."""

from __future__ import annotations

from pathlib import Path

import openvino as ov

from pipeline.core.errors import ModelError
from pipeline.model.last_layers import last_convolutions
from pipeline.model.supported import SUPPORTED

_STRIDES = (8, 16, 32)


def require_no_other_family(model: ov.Model, origin: Path) -> None:
    """Raise ModelError for a graph that is recognised as one of another family."""
    if family := _other_family(model):
        raise ModelError(f"{origin}: {family} with {_outputs(model)}; {SUPPORTED}")


def unknown(model: ov.Model, origin: Path) -> ModelError:
    """The error for a graph that is not recognised."""
    return ModelError(
        f"{origin}: not recognised as a YOLO detection model: it has {_outputs(model)}; {SUPPORTED}"
    )


def _outputs(model: ov.Model) -> str:
    shapes = ", ".join(f"{output.partial_shape}" for output in model.outputs[:4])
    more = ", ..." if len(model.outputs) > 4 else ""
    return f"{'outputs' if len(model.outputs) > 1 else 'the output'} {shapes}{more}"


def task_of(model: ov.Model) -> str | None:
    """The task of an ultralytics model, if its outputs are not those of detection; else None."""
    shapes = [_shape(output) for output in model.outputs]
    if len(shapes) == 1 and len(shapes[0]) == 2:
        return "classify"
    if [len(shape) for shape in shapes] == [3, 4]:
        num_masks = shapes[1][1]
        return "segment" if num_masks > 0 and shapes[0][1:].count(-1) < 2 else None
    if len(shapes) > 1 or len(shapes[0]) != 3 or shapes[0][1] in (-1, _num_cells(model)):
        return None
    heads = last_convolutions(model.outputs[0])
    channels = [_shape(head)[1] for head in heads]
    # Beside box and classes, each level has an angle, or 2 or 3 values for each keypoint.
    branches = {number for number in channels if channels.count(number) == len(heads) // 3}
    if len(branches) != 3:
        return None
    return "obb" if 1 in branches else "pose"


def _other_family(model: ov.Model) -> str | None:
    kinds = {operation.get_type_name() for operation in model.get_ops()}
    names = {name for output in model.outputs for name in output.get_names()}
    shapes = [_shape(output) for output in model.outputs]
    if "DetectionOutput" in kinds or shapes[0][2:] == [-1, 7] or shapes[0][3:] == [7]:
        return "an SSD"
    if "GridSample" in kinds or any("pred_boxes" in name for name in names):
        return "a DETR"
    # Boxes of four numbers, and their scores.
    if len(shapes) > 1 and any(shape[-1:] == [4] for shape in shapes):
        return "an SSD or DETR"
    if len(shapes) == 1 and len(shapes[0]) == 3 and shapes[0][1] == _num_cells(model):
        return "a YOLOX"
    return None


def _num_cells(model: ov.Model) -> int | None:
    """How many cells three levels have; None if the input has no fixed size."""
    shape = _shape(model.inputs[0])
    if len(shape) != 4 or min(shape) < 0:
        return None
    return sum((shape[2] // stride) * (shape[3] // stride) for stride in _STRIDES)


def _shape(port: ov.Output) -> list[int]:
    """-1 for a dimension that is not fixed."""
    shape = port.partial_shape
    if shape.rank.is_dynamic:
        return []
    return [-1 if size.is_dynamic else size.get_length() for size in shape]
