"""Parsed arguments -> validated configuration."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from pipeline.batch.clips import names_many
from pipeline.cli.parsers import OUTPUT_FOLDER
from pipeline.core.config import (
    STANDARD_INPUT,
    SYNTHETIC,
    AutoOptions,
    ClusterOptions,
    DetectOptions,
    EncodeOptions,
    InferOptions,
    LimitOptions,
    ProcessConfig,
    RemoteOptions,
    SyntheticOptions,
)
from pipeline.core.errors import UsageError
from pipeline.core.machine import available_cores
from pipeline.core.picture_sequence import PictureSequence
from pipeline.core.text import printable
from pipeline.core.work_folder import SPOOL_NAME
from pipeline.execution.store import is_url, scratch_output
from pipeline.inference.configurations import AUTO, named_options


def is_batch(arguments: argparse.Namespace) -> bool:
    """Whether `process` was given many clips. Raises UsageError for inputs that must be alone."""
    videos: list[str] = arguments.videos
    if len(videos) > 1:
        for word, what in ((STANDARD_INPUT, "standard input"), (SYNTHETIC, "the synthetic scene")):
            if word in videos:
                raise UsageError(
                    f"{what} must be the only input; for a file of this name give ./{word}"
                )
    elif not videos or videos[0] in (STANDARD_INPUT, SYNTHETIC) or not names_many(videos[0]):
        return False
    elif arguments.frame_rate is not None and Path(videos[0]).is_dir():
        return False  # One clip of its pictures.
    if url := next((name for name in [*videos, arguments.output_dir or ""] if is_url(name)), None):
        raise UsageError(f"{url}: object stores are for single clips; give one clip at a time")
    return True


def process_config(arguments: argparse.Namespace) -> ProcessConfig:
    """The configuration of `process`, for the first of its inputs. Raises UsageError.

    The source is `-` for standard input.
    """
    video = arguments.videos[0] if arguments.videos else SYNTHETIC
    if video == STANDARD_INPUT:
        name = SPOOL_NAME
    elif video != SYNTHETIC:
        path = Path(video)
        # The stem of "...mp4" is not a usable folder name.
        name = path.stem if path.stem.strip(".") else path.name
    else:
        name = arguments.image.stem if arguments.image else SYNTHETIC
    remote = RemoteOptions(
        source_url=video if is_url(video) else None,
        output_url=arguments.output_dir if is_url(arguments.output_dir or "") else None,
    )
    if remote.output_url is not None:
        output_dir = scratch_output(remote.output_url, video)
    else:
        output_dir = Path(arguments.output_dir or Path(OUTPUT_FOLDER) / name)
    return ProcessConfig(
        source=_source(arguments, video, arguments.frames),
        output_dir=output_dir,
        overwrite=arguments.overwrite,
        weights=arguments.weights,
        imgsz=arguments.imgsz,
        infer=infer_options(arguments),
        detect=DetectOptions(
            confidence_threshold=arguments.conf,
            iou_threshold=arguments.iou,
            classes=tuple(arguments.classes) if arguments.classes is not None else None,
            max_detections=arguments.max_det,
        ),
        encode=_encode_options(arguments),
        limits=_limit_options(arguments),
        calibration=arguments.calibration,
        video=not arguments.no_video,
        num_frames=arguments.frames,
        every=arguments.every,
        deinterlace=arguments.deinterlace,
        reuse_duplicates=not arguments.no_reuse,
        segment_seconds=arguments.segment_seconds,
        stall_seconds=arguments.stall_seconds,
        cluster=_cluster_options(arguments),
        remote=remote,
    )


def tune_config(arguments: argparse.Namespace) -> ProcessConfig:
    """The configuration that `tune` starts from. Raises UsageError."""
    if arguments.video == STANDARD_INPUT:
        raise UsageError("standard input can be read only once: give a file")
    return ProcessConfig(
        source=_source(arguments, arguments.video, None),
        output_dir=Path(),
        weights=arguments.weights,
        imgsz=arguments.imgsz,
        infer=AutoOptions(precision=arguments.precision),
        encode=_encode_options(arguments),
        limits=_limit_options(arguments),
        calibration=arguments.calibration,
    )


def _source(
    arguments: argparse.Namespace, video: str, num_frames: int | None
) -> Path | PictureSequence | SyntheticOptions:
    asked: dict[str, Any] = {
        "size_wh": arguments.size,
        "frame_rate": arguments.frame_rate,
        "seed": arguments.seed,
        "image": arguments.image,
        "num_frames": num_frames,
    }
    if video == SYNTHETIC:
        return SyntheticOptions(**{key: value for key, value in asked.items() if value is not None})
    for option in ("size", "seed", "image"):
        if getattr(arguments, option) is not None:
            raise UsageError(
                f"--{option} is an option of the synthetic source, and {printable(video)} is a clip"
            )
    if arguments.frame_rate is None:
        return Path(video)
    if not Path(video).is_dir():
        raise UsageError(
            f"--frame-rate is for the synthetic source and for a folder of pictures, and "
            f"{printable(video)} is neither"
        )
    return PictureSequence(folder=Path(video), frame_rate=arguments.frame_rate)


def _encode_options(arguments: argparse.Namespace) -> EncodeOptions:
    return EncodeOptions(codec=arguments.codec, crf=arguments.crf, preset=arguments.preset)


def _cluster_options(arguments: argparse.Namespace) -> ClusterOptions | None:
    options = ClusterOptions(
        address=arguments.address,
        cores_per_actor=arguments.cores_per_actor,
        show_logs=arguments.debug,
    )
    if arguments.executor == "ray":
        return options
    if arguments.address is not None or arguments.cores_per_actor is not None:
        raise UsageError("--address and --cores-per-actor are for --executor ray")
    return None


def _limit_options(arguments: argparse.Namespace) -> LimitOptions:
    return LimitOptions(
        max_size_wh=arguments.max_size,
        max_streams=arguments.max_streams,
        max_frame_rate=arguments.max_frame_rate,
        max_memory_mb=arguments.max_memory,
    )


def infer_options(arguments: argparse.Namespace) -> InferOptions | AutoOptions:
    """The single options, or the named configuration. Raises UsageError if both are given.

    A precision may be given with a configuration that does not set one.
    """
    asked = AutoOptions(
        device=arguments.device,
        hint=arguments.hint,
        precision=arguments.precision,
        batch=arguments.batch,
        num_streams=arguments.streams,
        num_requests=arguments.requests,
    )
    if arguments.config == AUTO:
        return asked
    named = named_options(arguments.config, available_cores())
    decided = ["device", "hint", "batch", "streams", "requests"]
    if named.precision not in ("auto", asked.precision):
        decided.append("precision")
    for option in decided:
        if (value := getattr(arguments, option)) is not None:
            raise UsageError(
                f"--config {arguments.config} and --{option} {value}: the configuration sets "
                f"the {option}; leave one of them out"
            )
    return asked.over(named)
