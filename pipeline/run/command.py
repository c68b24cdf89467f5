"""The command that repeats a run."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Iterator
from pathlib import Path

from pipeline.core.config import (
    STANDARD_INPUT,
    SYNTHETIC,
    AutoOptions,
    InferOptions,
    LimitOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.core.machine import available_cores
from pipeline.core.picture_sequence import PictureSequence
from pipeline.core.work_folder import SPOOL_NAME
from pipeline.inference.configurations import configurations


def repeat_command(config: ProcessConfig) -> str | None:
    """The command line of a run; None if an option was used that only Python offers.

    Options with their default values are left out.
    """
    infer = _infer_words(config.infer)
    if infer is None or config.encode.threads is not None:
        return None
    words = ["pipeline", "process", *_output_words(config), *infer, *_detect_words(config)]
    words += [*_source_words(config), *_limit_words(config), *_cluster_words(config)]
    return shlex.join([*words, "--", _source_name(config)])


def _output_words(config: ProcessConfig) -> Iterator[str]:
    yield from ("--output-dir", config.remote.output_url or str(config.output_dir))
    if config.overwrite:
        yield "--overwrite"
    if config.weights is not None:
        yield from (
            "--model" if isinstance(config.weights, str) else "--weights",
            _text(config.weights),
        )
    yield from _changed("--imgsz", config.imgsz, 640)
    yield from _changed("--calibration", config.calibration)
    encode = config.encode
    yield from _changed("--codec", encode.codec, "h264")
    yield from (*_changed("--crf", encode.crf), *_changed("--preset", encode.preset))
    if not config.video:
        yield "--no-video"


def _infer_words(infer: InferOptions | AutoOptions) -> list[str] | None:
    """The options that select these; None if there are none."""
    if isinstance(infer, AutoOptions):
        return _asked_words(infer)
    for entry in configurations(available_cores()).values():
        for variant in entry.variants:
            name = f"{entry.name} {variant.label}".strip()
            if variant.options == infer:
                return ["--config", name]
            # Some configurations do not set the precision.
            if variant.options == dataclasses.replace(infer, precision="auto"):
                return ["--config", name, "--precision", infer.precision]
    return None


def _asked_words(asked: AutoOptions) -> list[str]:
    return [
        *_changed("--device", asked.device),
        *_changed("--hint", asked.hint),
        *_changed("--precision", asked.precision),
        *_changed("--batch", asked.batch),
        *_changed("--streams", asked.num_streams),
        *_changed("--requests", asked.num_requests),
    ]


def _detect_words(config: ProcessConfig) -> Iterator[str]:
    detect, usual = config.detect, type(config.detect)()
    yield from _changed("--conf", detect.confidence_threshold, usual.confidence_threshold)
    yield from _changed("--iou", detect.iou_threshold, usual.iou_threshold)
    yield from _changed("--max-det", detect.max_detections, usual.max_detections)
    if detect.classes is not None:
        yield from ("--classes", *detect.classes)


def _source_words(config: ProcessConfig) -> Iterator[str]:
    source, usual = config.source, SyntheticOptions()
    counts = [config.num_frames]
    if isinstance(source, SyntheticOptions):
        if source.num_frames != usual.num_frames:
            counts.append(source.num_frames)
        yield from _changed("--size", source.size_wh, usual.size_wh)
        yield from _changed("--frame-rate", source.frame_rate, usual.frame_rate)
        yield from _changed("--seed", source.seed, usual.seed)
        yield from _changed("--image", source.image)
    elif isinstance(source, PictureSequence):
        yield from ("--frame-rate", str(source.frame_rate))
    yield from _changed("--frames", min((n for n in counts if n is not None), default=None))
    yield from _changed("--every", config.every, 1)
    yield from _changed("--deinterlace", config.deinterlace, "off")
    if not config.reuse_duplicates:
        yield "--no-reuse"
    yield from _changed("--segment-seconds", config.segment_seconds, 60.0)
    yield from _changed("--stall-seconds", config.stall_seconds, 60.0)


def _limit_words(config: ProcessConfig) -> Iterator[str]:
    limits, usual = config.limits, LimitOptions()
    yield from _changed("--max-size", limits.max_size_wh, usual.max_size_wh)
    yield from _changed("--max-streams", limits.max_streams, usual.max_streams)
    yield from _changed("--max-frame-rate", limits.max_frame_rate, usual.max_frame_rate)
    yield from _changed("--max-memory", limits.max_memory_mb, usual.max_memory_mb)


def _cluster_words(config: ProcessConfig) -> Iterator[str]:
    if config.cluster is not None:
        yield from ("--executor", "ray")
        yield from _changed("--address", config.cluster.address)
        yield from _changed("--cores-per-actor", config.cluster.cores_per_actor)
        if config.cluster.show_logs:
            yield "--debug"


def _source_name(config: ProcessConfig) -> str:
    if isinstance(config.source, SyntheticOptions):
        return SYNTHETIC
    if isinstance(config.source, Path) and config.source.name == SPOOL_NAME:
        return STANDARD_INPUT  # Of which the file was a copy.
    name = config.remote.source_url or config.source_name
    return f"./{name}" if name in (SYNTHETIC, STANDARD_INPUT) else name


def _changed(option: str, value: object, usual: object = None) -> tuple[str, ...]:
    return () if value == usual else (option, _text(value))


def _text(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)
