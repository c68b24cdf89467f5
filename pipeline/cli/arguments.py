"""Parsed arguments -> validated configuration."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from pipeline.batch.clips import EMPTY_NAME, names_many
from pipeline.cli.groups import OUTPUT_FOLDER
from pipeline.cli.options import SCENE_FIELDS, given
from pipeline.core.config import (
    STANDARD_INPUT,
    SYNTHETIC,
    AutoOptions,
    ClusterOptions,
    DrawOptions,
    EncodeOptions,
    InferOptions,
    LimitOptions,
    ProcessConfig,
    RemoteOptions,
    SyntheticOptions,
)
from pipeline.core.errors import UsageError
from pipeline.core.machine import available_cores
from pipeline.core.options import changed, declared
from pipeline.core.picture_sequence import PictureSequence
from pipeline.core.redactable import require_redactable
from pipeline.core.text import printable
from pipeline.core.work_folder import SPOOL_NAME
from pipeline.execution.store import is_url, require_known, scratch_output
from pipeline.inference.configurations import AUTO, named_options
from pipeline.run.recorded import RecordedRun


def is_batch(arguments: argparse.Namespace) -> bool:
    """Whether `process` was given many clips. Raises UsageError for inputs that must be alone."""
    videos: list[str] = arguments.videos
    for name in [*videos, arguments.output_dir or ""]:
        require_known(name)
    if "" in videos:
        raise UsageError(EMPTY_NAME)
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
        raise UsageError(
            f"{url}: a batch neither reads from an object store nor writes to one; give one clip "
            "at a time"
        )
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
    config = ProcessConfig(
        source=_source(arguments, video, arguments.num_frames),
        output_dir=output_dir,
        infer=infer_options(arguments),
        cluster=_cluster_options(arguments),
        remote=remote,
        **given(ProcessConfig, arguments),
    )
    require_redactable(config)
    return config


def render_config(arguments: argparse.Namespace, recorded: RecordedRun) -> ProcessConfig:
    """The configuration of `render`, for these detections. Raises UsageError."""
    encode, draw = (
        {
            name: value
            for name, option in declared(kind).items()
            if option.flag and (value := getattr(arguments, name)) is not None
        }
        for kind in (EncodeOptions, DrawOptions)
    )
    return ProcessConfig(
        source=Path(arguments.clip),
        output_dir=arguments.output_dir or arguments.detections.parent,
        overwrite=arguments.overwrite,
        encode=recorded.encode_with(**encode),
        draw=dataclasses.replace(recorded.draw, **draw),
        redact=recorded.redact,
        limits=LimitOptions(**given(LimitOptions, arguments)),
        num_frames=recorded.num_frames,
        start=recorded.start,
        end=recorded.end,
        deinterlace=recorded.deinterlace,
        segment_seconds=recorded.segment_seconds,
        stall_seconds=arguments.stall_seconds,
        cores=arguments.cores,
        segments_at_once=arguments.segments_at_once,
    )


def tune_config(arguments: argparse.Namespace) -> ProcessConfig:
    """The configuration that `tune` starts from. Raises UsageError."""
    require_known(arguments.clip)
    if arguments.clip == STANDARD_INPUT:
        raise UsageError("standard input can be read only once: give a file")
    return ProcessConfig(
        source=_source(arguments, arguments.clip, None),
        output_dir=Path(),
        infer=AutoOptions(precision=arguments.precision),
        **given(ProcessConfig, arguments),
    )


def _source(
    arguments: argparse.Namespace, video: str, num_frames: int | None
) -> Path | PictureSequence | SyntheticOptions:
    asked = {name: getattr(arguments, name) for name in SCENE_FIELDS}
    if video == SYNTHETIC:
        asked["num_frames"] = num_frames
        return SyntheticOptions(**{key: value for key, value in asked.items() if value is not None})
    for name, value in asked.items():
        if name != "frame_rate" and value is not None:
            raise UsageError(
                f"{declared(SyntheticOptions)[name].flag} is an option of the synthetic scene, "
                f"and {printable(video)} is a clip"
            )
    if arguments.frame_rate is None:
        return Path(video)
    if not Path(video).is_dir():
        raise UsageError(
            f"--frame-rate is for the synthetic scene and for a folder of pictures, and "
            f"{printable(video)} is neither"
        )
    return PictureSequence(folder=Path(video), frame_rate=arguments.frame_rate)


def _cluster_options(arguments: argparse.Namespace) -> ClusterOptions | None:
    options = ClusterOptions(show_logs=arguments.debug, **given(ClusterOptions, arguments))
    if arguments.executor == "ray":
        return options
    if arguments.address is not None or arguments.cores_per_actor is not None:
        raise UsageError("--address and --cores-per-actor are for --executor ray")
    return None


def infer_options(arguments: argparse.Namespace) -> InferOptions | AutoOptions:
    """The single options, or the named configuration. Raises UsageError if both are given.

    A precision may be given with a configuration that does not set one.
    """
    asked = AutoOptions(**given(AutoOptions, arguments))
    if arguments.config == AUTO:
        return asked
    named = named_options(arguments.config, available_cores())
    for name, option, value in changed(asked):
        if name != "precision" or named.precision not in ("auto", value):
            raise UsageError(
                f"--config {arguments.config} sets {option.flag} too: leave {option.flag} {value} "
                "or the configuration out"
            )
    return asked.over(named)
