"""Annotate footage with YOLOv5 through OpenVINO at the highest throughput the machine allows.

>>> from pathlib import Path
>>> from pipeline import ProcessConfig, process_video
>>> report = process_video(ProcessConfig(source=Path("clip.mp4"), output_dir=Path("out")))
>>> report["speed"]["file_to_file_fps"]
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from pipeline.config import (
    DetectOptions,
    EncodeOptions,
    InferOptions,
    LimitOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.errors import (
    EncodeError,
    InferenceError,
    InputError,
    Interrupted,
    ModelError,
    PipelineError,
    UsageError,
    WorkerDied,
)
from pipeline.progress import Progress

# OpenVINO tells its makers of every import, over the network, unless this module is not there.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]

if TYPE_CHECKING:
    from pipeline.run import process_video

__all__ = [
    "DetectOptions",
    "EncodeError",
    "EncodeOptions",
    "InferOptions",
    "InferenceError",
    "InputError",
    "Interrupted",
    "LimitOptions",
    "ModelError",
    "PipelineError",
    "ProcessConfig",
    "Progress",
    "SyntheticOptions",
    "UsageError",
    "WorkerDied",
    "process_video",
]


def __getattr__(name: str) -> object:
    # Only then: openvino, av and cv2 take a third of a second, which --help need not pay.
    if name == "process_video":
        from pipeline.run import process_video

        return process_video
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
