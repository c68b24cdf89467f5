"""Which models are supported, and what a file is that is not one of them; without OpenVINO."""

from __future__ import annotations

from pathlib import Path

from pipeline.core.errors import ModelError

SUPPORTED = (
    "supported are detection models of YOLOv5, v8, v9, v10, 11, 12 and 26, as .pt, .onnx or the "
    "folder of an OpenVINO export"
)
DETECT = "detect"

_TASKS = {
    "SegmentationModel": "segment",
    "PoseModel": "pose",
    "OBBModel": "obb",
    "ClassificationModel": "classify",
}
_FAMILIES = {"RTDETRDetectionModel": "an RT-DETR", "WorldModel": "a YOLO-World"}
_LONGEST_TASK, _LONGEST_NAME = 50, 100
_LOOKED_AT_BYTES = 512
_ZIP, _LFS = b"PK\x03\x04", b"version https://git-lfs"


def require_task(task: str | None, origin: Path) -> None:
    """Raise ModelError for another task than detection; None is unknown."""
    if task not in (None, DETECT):
        raise ModelError(f"{origin}: a model for the task {task[:_LONGEST_TASK]!r}; {SUPPORTED}")


def require_supported_class(name: str, origin: Path) -> None:
    """Raise ModelError for the class of a model of another task or family, as a checkpoint has."""
    last = name.rpartition(".")[2]
    shown = name if name.isprintable() and len(name) <= _LONGEST_NAME else last
    if task := _TASKS.get(last):
        raise ModelError(f"{origin}: {shown}, a model for the task {task!r}; {SUPPORTED}")
    if family := _FAMILIES.get(last):
        raise ModelError(f"{origin}: {shown}, {family}; {SUPPORTED}")


def kind_of_file(path: Path) -> str | None:
    """What a file is that cannot be read as a checkpoint, in a few words; None if it is unknown."""
    with path.open("rb") as file:
        begin = file.read(_LOOKED_AT_BYTES)
    if begin.startswith(_LFS):
        return "a pointer of Git LFS: fetch the file with `git lfs pull`"
    if begin.startswith(_ZIP):
        return "a damaged or incomplete archive: copy or download it again"
    try:
        text = begin.decode("utf-8")
    except UnicodeDecodeError as error:
        # The last character may be cut off.
        text = begin[: error.start].decode("utf-8") if error.end == len(begin) > 4 else "\0"
    return "a text file" if text and "\0" not in text else None
