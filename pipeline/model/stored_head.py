"""The families of heads: which of them a graph has, and how a finished graph keeps its head."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import openvino as ov
from numpy.typing import NDArray

from pipeline.core.errors import ModelError
from pipeline.model import anchor_free_graph, decoded_graph, yolov5_graph
from pipeline.model.anchor_free import AnchorFreeHead, AnchorFreeLayout
from pipeline.model.decoded import DecodedHead, DecodedLayout
from pipeline.model.found import require_no_other_family, task_of
from pipeline.model.heads import Head
from pipeline.model.last_layers import require_one_picture_input
from pipeline.model.metadata import read_metadata
from pipeline.model.supported import require_task
from pipeline.model.yolov5 import HeadLayout, YOLOv5Head

Layout = HeadLayout | AnchorFreeLayout | DecodedLayout

_RT_INFO_KEY = ["pipeline", "head_layout"]
_LAYOUTS: Mapping[str, type[Layout]] = {
    "yolov5": HeadLayout,
    "anchor_free": AnchorFreeLayout,
    "decoded": DecodedLayout,
}


def has_stored_layout(model: ov.Model) -> bool:
    """Whether `finish` made this graph."""
    return bool(model.has_rt_info(_RT_INFO_KEY))


def store_layout(model: ov.Model, layout: Layout) -> None:
    """Store the layout of its heads in a graph, finished or not."""
    model.set_rt_info(layout_json(layout), _RT_INFO_KEY)


def stored_layout(model: ov.Model, origin: Path) -> Layout:
    """The head layout that `store_layout` stored in a graph. Raises ModelError if there is none."""
    try:
        values = json.loads(model.get_rt_info(_RT_INFO_KEY).astype(str))
        layout = _LAYOUTS[values.pop("family", "yolov5")]  # Earlier versions knew no other.
        return layout(**{name: _tuples(value) for name, value in values.items()})
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{origin}: its head layout cannot be read ({error})") from error


def stored_head(model: ov.Model, arrays: Mapping[str, NDArray[Any]], origin: Path) -> Head:
    """The head of a finished graph, of its layout and what `arrays` gave.

    Raises ModelError if there is no layout, KeyError for other arrays.
    """
    layout = stored_layout(model, origin)
    if isinstance(layout, HeadLayout):
        if not arrays and needs_arrays(model, layout):
            raise KeyError("weight_0")
        return YOLOv5Head.from_stored(layout, arrays)
    if isinstance(layout, AnchorFreeLayout):
        return AnchorFreeHead(layout)
    return DecodedHead(layout)


def needs_arrays(model: ov.Model, layout: Layout) -> bool:
    """Whether the head of a finished graph is made of arrays beside it, too."""
    return isinstance(layout, HeadLayout) and yolov5_graph.has_split_heads(model, layout)


def cut_at_heads(model: ov.Model, origin: Path) -> tuple[ov.Model, Layout]:
    """An exported graph -> the same graph ending at its raw heads, or as it is, with its layout.

    Raises ModelError if it is no detection model of a known family.
    """
    require_one_picture_input(model, origin)
    metadata = read_metadata(model, origin)
    require_task(metadata.task or task_of(model), origin)
    if (cut := anchor_free_graph.cut_at_heads(model, metadata)) is not None:
        return cut
    require_no_other_family(model, origin)
    if (layout := decoded_graph.layout_of(model, metadata)) is not None:
        return model, layout
    return yolov5_graph.cut_at_heads(model, metadata, origin)


def finish(model: ov.Model, layout: Layout, input_wh: tuple[int, int]) -> tuple[ov.Model, Head]:
    """Give a graph its final form for one input shape, with its layout stored in it.

    Raises ModelError if its outputs are not those of the layout.
    """
    finished: tuple[ov.Model, Head]
    if isinstance(layout, HeadLayout):
        finished = yolov5_graph.finish(model, layout, input_wh)
    elif isinstance(layout, AnchorFreeLayout):
        finished = anchor_free_graph.finish(model, layout, input_wh)
    else:
        finished = decoded_graph.finish(model, layout, input_wh)
    store_layout(finished[0], layout)
    return finished


def check_finished(model: ov.Model, layout: Layout, input_wh: tuple[int, int]) -> None:
    """Raise ModelError unless the outputs of a finished graph are those of the layout."""
    if isinstance(layout, HeadLayout):
        yolov5_graph.check_heads(model, layout, input_wh)
    elif isinstance(layout, AnchorFreeLayout):
        anchor_free_graph.check_heads(model, layout, input_wh)
    else:
        decoded_graph.check_output(model, layout)


def layout_json(layout: Layout) -> str:
    """The text that a finished graph keeps as its layout."""
    family = next(name for name, cls in _LAYOUTS.items() if isinstance(layout, cls))
    return json.dumps({"family": family, **dataclasses.asdict(layout)})


def _tuples(value: Any) -> Any:
    """Lists of JSON as the tuples that they were."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
