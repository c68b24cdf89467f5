"""What an exporter wrote beside or into a model: its classes, task, strides and input size."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.errors import ModelError
from pipeline.core.yaml_file import read_yaml

if TYPE_CHECKING:
    import openvino as ov  # At run time it would load OpenVINO for --help.

METADATA_NAME = "metadata.yaml"


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is known of an exported model; None where its exporter did not say.

    class_names: by class id. task: of ultralytics: "detect", "segment", ... imgsz_wh: the input it
    was exported for. description: of its exporter.
    """

    class_names: tuple[str, ...] | None = None
    task: str | None = None
    stride: int | None = None
    imgsz_wh: tuple[int, int] | None = None
    description: str | None = None

    def names_for(self, num_classes: int) -> tuple[str, ...]:
        """The names of so many classes; numbers where the exporter left no names."""
        names = self.class_names or ()
        return names if len(names) == num_classes else tuple(map(str, range(num_classes)))


def read_metadata(model: ov.Model, origin: Path) -> Metadata:
    """The metadata.yaml beside an IR, else what is in the graph itself.

    Raises ModelError for a metadata.yaml that cannot be read.
    """
    beside = origin.with_name(METADATA_NAME)
    if origin.suffix == ".xml" and beside.is_file():
        return _metadata(_read_yaml(beside))
    found = {
        key: model.get_rt_info(["framework", key]).astype(str)
        for key in ("names", "task", "stride", "imgsz", "description")
        if model.has_rt_info(["framework", key])
    }
    labels = ["model_info", "labels"]  # Those of OpenVINO's model API; spaces are underscores.
    if "names" not in found and model.has_rt_info(labels):
        found["names"] = model.get_rt_info(labels).astype(str).split()
    return _metadata(found)


def _read_yaml(path: Path) -> Mapping[Any, Any]:
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not the metadata of a model ({error})") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path}: not the metadata of a model (it is no mapping)")
    return content


def _metadata(found: Mapping[Any, Any]) -> Metadata:
    """Entries as they are, or as the text that Python makes of them; odd ones count as unknown."""
    values = {key: _value(found.get(key)) for key in ("names", "task", "stride", "imgsz")}
    stride, imgsz = values["stride"], values["imgsz"]
    return Metadata(
        class_names=_class_names(values["names"]),
        task=values["task"] if isinstance(values["task"], str) else None,
        stride=stride if type(stride) is int and 0 < stride <= 1024 else None,
        imgsz_wh=_size_wh(imgsz),
        description=str(found["description"])[:200] if found.get("description") else None,
    )


def _value(entry: Any) -> Any:
    if not isinstance(entry, str):
        return entry
    try:
        return ast.literal_eval(entry)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return entry


def _class_names(names: Any) -> tuple[str, ...] | None:
    if isinstance(names, dict):
        if list(names) != list(range(len(names))):
            return None
        names = list(names.values())
    if not isinstance(names, list | tuple) or not names:
        return None
    return tuple(str(name) for name in names)


def _size_wh(imgsz: Any) -> tuple[int, int] | None:
    """Of [height, width]."""
    if isinstance(imgsz, list | tuple) and len(imgsz) == 2:
        height, width = imgsz
        if type(height) is int and type(width) is int:
            return width, height
    return None
