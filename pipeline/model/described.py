"""What a model file is and what of this project's optimisations applies to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import openvino as ov

from pipeline.core.progress import ProgressCallback
from pipeline.model.anchor_free import AnchorFreeHead
from pipeline.model.decoded import DecodedHead
from pipeline.model.heads import Head
from pipeline.model.metadata import METADATA_NAME, read_metadata
from pipeline.model.prepare import PreparedModel, prepare_model
from pipeline.model.supported import DETECT

_FORMS = {".pt": "checkpoint", ".onnx": "ONNX", ".xml": "OpenVINO IR"}
_ODD_WH = (192, 128)
"""A graph that comes out for this size takes every size."""

_NAMED = re.compile(r"\bYOLO\S+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """One model, as plain values.

    file: as it was found; sha256: of its parts. family: as its exporter named it, else by its head.
    form: of the file. class_names: by class id. input_wh: of a graph of one size; None if pictures
    of all sizes fit, whose sides are rounded up to multiples of input_multiple.
    parameters: of the graph, with convolutions fused.
    is_int8: whether the file is quantised already. raw_heads: whether the graph was cut at its raw
    heads, so that only boxes that pass are decoded. uint8_input: whether it takes pictures as they
    are. paired_convolution: whether the first convolution reads two columns at a time.
    can_be_int8: whether --precision int8 quantises it. needs_nms: whether boxes can overlap.
    nms_free: whether --nms-free selects a branch whose boxes do not.
    """

    file: str
    sha256: str
    family: str
    task: str
    form: str
    class_names: tuple[str, ...]
    input_wh: tuple[int, int] | None
    input_multiple: int
    parameters: int
    is_int8: bool
    raw_heads: bool
    uint8_input: bool
    paired_convolution: bool
    can_be_int8: bool
    needs_nms: bool
    nms_free: bool


def describe_model(weights: Path, on_progress: ProgressCallback) -> ModelFacts:
    """The facts of a model file, which is converted for that. Raises ModelError if it cannot be.

    weights: as `find_weights` gives it.
    """
    prepared = prepare_model(weights, _ODD_WH, max(_ODD_WH), on_progress)
    head, is_int8 = prepared.head, prepared.quantization is not None
    return ModelFacts(
        file=str(weights),
        sha256=prepared.weights_sha256,
        family=_family(prepared, weights),
        task=DETECT,
        form=_FORMS[weights.suffix] + (f" with {METADATA_NAME}" if _has_metadata(weights) else ""),
        class_names=head.class_names,
        input_wh=None if prepared.input_wh == _ODD_WH else prepared.input_wh,
        input_multiple=max(head.strides),
        parameters=_num_parameters(prepared.model, head),
        is_int8=is_int8,
        raw_heads=not isinstance(head, DecodedHead),
        uint8_input=prepared.model.input().element_type == ov.Type.u8,
        paired_convolution=_reads_pairs(prepared.model),
        can_be_int8=not is_int8,
        needs_nms=head.needs_nms,
        nms_free=_has_nms_free_branch(head),
    )


def _has_metadata(weights: Path) -> bool:
    return weights.suffix == ".xml" and weights.with_name(METADATA_NAME).is_file()


def _family(prepared: PreparedModel, weights: Path) -> str:
    head = prepared.head
    description = read_metadata(prepared.model, weights).description or ""
    if named := _NAMED.search(description):
        return named.group()
    if isinstance(head, AnchorFreeHead):
        if head.layout.num_bins == 1:
            return "YOLO26"
        return "YOLOv10" if _has_nms_free_branch(head) else "YOLOv8, v9, 11, 12 or v5u"
    if isinstance(head, DecodedHead):
        return "YOLO with decoded output"
    return "YOLOv5" if len(head.strides) == 3 else "YOLOv5 P6"


def _has_nms_free_branch(head: Head) -> bool:
    return not head.needs_nms or (
        isinstance(head, AnchorFreeHead) and head.layout.has_nms_free_branch
    )


def _num_parameters(model: ov.Model, head: Head) -> int:
    """Weights and biases in the graph and beside it."""
    inside = sum(
        operation.get_data().size
        for operation in model.get_ops()
        if operation.get_type_name() == "Constant"
        and operation.get_element_type().to_string() in ("f32", "f16", "i8", "u8")
    )
    return int(inside + sum(array.size for array in head.arrays().values()))


def _reads_pairs(model: ov.Model) -> bool:
    """Whether the picture is reshaped into pairs of columns, see `graph`."""
    consumers = [port.get_node() for port in model.input().get_target_inputs()]
    return any(
        node.get_type_name() == "Reshape" and list(node.output(0).partial_shape)[-1:] == [6]
        for node in consumers
    )
