"""Detect objects in footage with YOLOv5 and OpenVINO at the highest throughput of the machine.

>>> from pathlib import Path
>>> from pipeline import ProcessConfig, process_video
>>> report = process_video(ProcessConfig(source=Path("clip.mp4"), output_dir=Path("out")))
>>> report["speed"]["file_to_file_fps"]
"""

from __future__ import annotations

import sys

# As in `typing`, which takes longer to import than this module.
TYPE_CHECKING = False

# OpenVINO reports every import over the network if this module can be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

if TYPE_CHECKING:
    from pipeline.core.config import (
        AutoOptions,
        DetectOptions,
        DrawOptions,
        EncodeOptions,
        InferOptions,
        LimitOptions,
        ProcessConfig,
        SyntheticOptions,
    )
    from pipeline.core.detection_lines import DetectedBox, DetectedFrame, read_detections
    from pipeline.core.errors import (
        EncodeError,
        FolderInUse,
        InferenceError,
        InputError,
        Interrupted,
        KeptByAnotherRun,
        ModelError,
        PipelineError,
        SourceChanged,
        UsageError,
        WorkerDied,
    )
    from pipeline.core.progress import Progress
    from pipeline.run.detect import detect
    from pipeline.run.process import process_video

__all__ = [
    "AutoOptions",
    "DetectOptions",
    "DetectedBox",
    "DetectedFrame",
    "DrawOptions",
    "EncodeError",
    "EncodeOptions",
    "FolderInUse",
    "InferOptions",
    "InferenceError",
    "InputError",
    "Interrupted",
    "KeptByAnotherRun",
    "LimitOptions",
    "ModelError",
    "PipelineError",
    "ProcessConfig",
    "Progress",
    "SourceChanged",
    "SyntheticOptions",
    "UsageError",
    "WorkerDied",
    "detect",
    "process_video",
    "read_detections",
]


_MODULES = (
    *("core.config", "core.errors", "core.progress", "core.detection_lines"),
    *("run.process", "run.detect"),
)
"""The modules of the public names; the last two import openvino, av and cv2."""


def __getattr__(name: str) -> object:
    # Lazily: --help must not wait for heavy imports.
    if name in __all__:
        from importlib import import_module

        for module in _MODULES:
            found = getattr(import_module(f"pipeline.{module}"), name, None)
            if found is not None:
                return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
