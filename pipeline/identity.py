"""What tells one source, and one result, from another, without opening or decoding anything."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline.checksum import file_sha256
from pipeline.config import ProcessConfig, SyntheticOptions
from pipeline.model.parts import parts_sha256, require_sizes
from pipeline.model.weights import find_weights
from pipeline.progress import ProgressCallback


def model_sha256(config: ProcessConfig, on_progress: ProgressCallback) -> str:
    """Of the model that a run takes. Raises ModelError where there is none."""
    weights = find_weights(config.weights, on_progress, "demo" if config.scene else "official")
    require_sizes(weights)
    return parts_sha256(weights)


def result_key(config: ProcessConfig, weights_sha256: str) -> str:
    """A hash of what the result of a run was asked to be: of which input, by which model, how.

    A clip of the same path, size and time of its last change is taken to be the same. Whatever a
    machine chooses by itself, and the versions of libraries, are not part of it. Raises OSError
    if the input is not there.
    """
    asked: dict[str, Any] = {
        "place": str(config.source.resolve()) if isinstance(config.source, Path) else None,
        "source": source_stamp(config.source),
        "model": weights_sha256,
        "calibration": config.calibration and _folder_stamp(config.calibration),
        "infer": [type(config.infer).__name__, dataclasses.asdict(config.infer)],
        "imgsz": config.imgsz,
        "detect": dataclasses.asdict(config.detect),
        "encode": dataclasses.asdict(config.encode),
        "frames": [config.num_frames, config.every, config.reuse_duplicates],
        "segment_seconds": config.segment_seconds,
    }
    return hashlib.sha256(json.dumps(asked, default=str).encode()).hexdigest()


def source_stamp(source: Path | SyntheticOptions) -> Any:
    """Plain values that tell a source from others; of a clip not its every byte."""
    if isinstance(source, SyntheticOptions):
        picture = file_sha256(source.image) if source.image else None
        return [dataclasses.asdict(source), picture]
    found = source.stat()
    return [source.name, found.st_size, found.st_mtime_ns]


def _folder_stamp(folder: Path) -> list[Any]:
    return sorted(source_stamp(path) for path in folder.iterdir())
