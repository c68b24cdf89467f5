"""Keys that identify sources and results, computed without decoding.

Imports nothing heavy: the parent process uses it to find finished results.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.core.config import (
    CLIP,
    DEFAULT_DRAWING,
    DrawOptions,
    EncodeOptions,
    ProcessConfig,
)
from pipeline.core.files import file_stamp, real_path
from pipeline.core.machine import tracker_versions, versions
from pipeline.core.options import deciding
from pipeline.core.picture_paths import calibration_pictures
from pipeline.core.position import Beat
from pipeline.core.progress import ProgressCallback
from pipeline.model.parts import parts_sha256, require_sizes
from pipeline.model.weights import find_weights

if TYPE_CHECKING:
    from pipeline.media.frame import Segment  # At run time it would load FFmpeg.


def model_sha256(config: ProcessConfig, on_progress: ProgressCallback) -> str:
    """The SHA-256 of the model of a run. Raises ModelError if there is none."""
    weights = find_weights(config.weights, on_progress, config.default_model)
    require_sizes(weights)
    return parts_sha256(weights)


def result_key(config: ProcessConfig, weights_sha256: str) -> str:
    """A hash of the request for a result: input, model and options.

    A clip with the same path, size and modification time counts as the same, one in a store by its
    address and version. What the machine selects, and the versions of libraries, are not included.
    Raises OSError if the input is missing, InputError if the pictures for the calibration are.
    """
    return request_keys(config, weights_sha256).result


@dataclasses.dataclass(frozen=True, slots=True)
class RequestKeys:
    """The result key of a request, and the key of its detections, whatever its annotated file."""

    result: str
    detections: str


def request_keys(config: ProcessConfig, weights_sha256: str) -> RequestKeys:
    """The keys of a request for a result; raises as `result_key`."""
    detections = _detections_key(config, weights_sha256)
    encode = config.encode if config.video else None
    return RequestKeys(drawn_key(detections, encode, config.draw), detections)


def _detections_key(config: ProcessConfig, weights_sha256: str) -> str:
    options = _deciding(config)
    for of_annotated_file in ("video", "encode", "draw"):
        del options[of_annotated_file]
    if config.adaptive or config.infer.precision == "int8":  # The report has a verdict.
        options["least_agreement"] = config.least_agreement
    asked: dict[str, Any] = {
        "place": config.remote.source_url or _local_place(config),
        "source": config.remote.source_version or config.origin.stamp(),
        "model": weights_sha256,
        "calibration": _calibration_stamp(config),
        "infer": [type(config.infer).__name__, dataclasses.asdict(config.infer)],
        "options": options,
        "segment_seconds": config.segment_seconds,
    }
    return _hash(asked)


def drawn_key(
    detections_key: str, encode: EncodeOptions | None, draw: DrawOptions = DEFAULT_DRAWING
) -> str:
    """The result key of detections with an annotated file that is encoded so; None for none."""
    drawn = [] if encode is None or draw == DEFAULT_DRAWING else [deciding(draw)]
    return _hash([detections_key, encode and deciding(encode), *drawn])


def _hash(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, default=str).encode()).hexdigest()


def _local_place(config: ProcessConfig) -> str | None:
    return None if config.synthetic else str(real_path(Path(config.source_name)))


@dataclasses.dataclass(frozen=True, slots=True)
class ModelIdentity:
    """What decides the result of a model that was prepared and selected.

    int8: names the quantised model; None for one in float. precision: what is computed with here.
    """

    sha256: str
    int8: str | None
    engine: str
    device: str
    precision: str
    batch: int


def run_key(
    config: ProcessConfig, segments: Sequence[Segment], model: ModelIdentity, beat: Beat
) -> str:
    """A hash of everything that the result depends on: input, model, options and versions.

    Raises OSError if the input is missing.
    """
    origin = config.origin
    known: dict[str, Any] = {
        # With one segment hardly anything can be resumed: its content is not read for that.
        "source": origin.content(beat) if len(segments) > 1 else origin.stamp(),
        "segments": [dataclasses.astuple(segment) for segment in segments],
        "model": dataclasses.astuple(model),
        "options": _deciding(config),
        "versions": versions(),
    }
    if config.track is not None:
        known["tracker"] = tracker_versions()
    return _hash(known)


def _deciding(config: ProcessConfig) -> dict[str, Any]:
    """The options that decide the result, as plain values by name."""
    options = deciding(config)
    options["detect"]["iou_threshold"] = config.detect.nms_iou
    if config.adaptive:  # Frames that need much memory are inferred closer to each other.
        options["max_memory_mb"] = config.limits.max_memory_mb
    return options


def _calibration_stamp(config: ProcessConfig) -> Any:
    """Plain values that identify what INT8 is calibrated on, besides the source; None in float."""
    if config.infer.precision != "int8":
        return None
    if config.calibration is None:
        return "default"
    if config.calibration == CLIP:
        return [CLIP, *(file_stamp(p) for p in config.calibration_clips if p.is_file())]
    return [file_stamp(path) for path in calibration_pictures(Path(config.calibration))]
