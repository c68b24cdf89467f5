"""Pictures to calibrate INT8 on: the default ones, those of a folder, or frames of clips."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from pipeline.core.config import (
    CLIP,
    DEFAULT_LIMITS,
    LimitOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.core.errors import InputError
from pipeline.core.files import file_state
from pipeline.core.notes import note
from pipeline.core.picture_paths import calibration_pictures
from pipeline.core.picture_sequence import PictureSequence
from pipeline.core.text import counted
from pipeline.frames.decode import VideoReader
from pipeline.frames.photographs import calibration_of_photographs
from pipeline.frames.picture_sequence import PictureSequenceSource
from pipeline.media.frame import Frame
from pipeline.media.pictures import decode_picture, picture_bytes
from pipeline.model.quantize import NUM_PICTURES, Calibration
from pipeline.synthetic.source import SyntheticSource
from pipeline.synthetic.sprites import CLASS_NAMES

_SCENE = SyntheticOptions(num_frames=1200, size_wh=(640, 480), seed=1_000_003)
"""The frames that a model of the scene's classes is calibrated on, of a seed of their own."""
_NUM_SCENE_FRAMES = 60


def calibration_for(config: ProcessConfig, class_names: Sequence[str]) -> Calibration:
    """The pictures that a run asks for. Raises InputError, UsageError if there are none.

    class_names: those of the model.
    """
    if config.calibration is None:
        return default_calibration(class_names)
    if config.calibration != CLIP:
        return calibration_of_folder(Path(config.calibration))
    if config.calibration_clips:
        return calibration_of_clips(config.calibration_clips, config.limits)
    return calibration_of_source(config.source, config.limits)


def default_calibration(class_names: Sequence[str]) -> Calibration:
    """The pictures for models of these classes, which are the same for every clip.

    Raises UsageError if a package that they come from is not installed.
    """
    if tuple(class_names) != CLASS_NAMES:
        return calibration_of_photographs()
    return Calibration(
        key=f"{_NUM_SCENE_FRAMES} of {_SCENE}",
        origin=f"{_NUM_SCENE_FRAMES} frames of the synthetic scene",
        frames=lambda: SyntheticSource(_SCENE).sample(_NUM_SCENE_FRAMES),
    )


def calibration_of_folder(folder: Path) -> Calibration:
    """Pictures of a folder, or of images/ in it. Raises InputError if there are none."""
    paths = calibration_pictures(folder)
    chosen = [paths[i] for i in _spread(len(paths), NUM_PICTURES)]
    hashes = [hashlib.sha256(picture_bytes(path)).digest() for path in chosen]
    return Calibration(
        key=hashlib.sha256(b"".join(hashes)).hexdigest(),
        origin=f"{counted(len(chosen), 'picture')} of {folder.name}",
        frames=lambda: map(_same_picture, chosen, hashes, range(len(chosen))),
    )


def _same_picture(path: Path, sha256: bytes, index: int) -> Frame:
    content = picture_bytes(path)
    if hashlib.sha256(content).digest() != sha256:
        raise _changed(path)
    return decode_picture(content, path, index)


def calibration_of_source(
    source: Path | PictureSequence | SyntheticOptions, limits: LimitOptions = DEFAULT_LIMITS
) -> Calibration:
    """Frames of the source itself, spread over it."""
    if isinstance(source, SyntheticOptions):
        picture = picture_bytes(source.image) if source.image else b""
        return Calibration(
            key=f"{dataclasses.replace(source, image=None)} {hashlib.sha256(picture).hexdigest()}",
            origin="frames of the synthetic scene",
            frames=lambda: SyntheticSource(source).sample(NUM_PICTURES),
        )
    if isinstance(source, PictureSequence):
        return Calibration(
            key=hashlib.sha256(repr(source.stamp()).encode()).hexdigest(),
            origin=f"pictures of {source.folder.name}",
            frames=lambda: PictureSequenceSource(source, limits).sample(NUM_PICTURES),
        )
    state = file_state(source)
    return Calibration(
        key=state[0],
        origin=f"frames of {source.name}",
        frames=lambda: _clip_frames(source, limits, state, NUM_PICTURES),
    )


def calibration_of_clips(clips: Sequence[Path], limits: LimitOptions) -> Calibration:
    """Frames spread over many clips; those that cannot be read are left out, with a note."""
    chosen = [clips[i] for i in _spread(len(clips), NUM_PICTURES)]
    states = {path: file_state(path) for path in chosen if path.is_file()}
    each = -(-NUM_PICTURES // max(1, len(states)))
    return Calibration(
        key=f"{each} of {[state[0] for state in states.values()]}",
        origin=f"frames of {counted(len(states), 'clip')}",
        frames=lambda: itertools.chain.from_iterable(
            _frames_if_readable(path, limits, state, each) for path, state in states.items()
        ),
    )


def _frames_if_readable(
    path: Path, limits: LimitOptions, state: tuple[str, int], count: int
) -> Iterator[Frame]:
    try:
        yield from _clip_frames(path, limits, state, count)
    except _ChangedError:
        raise
    except InputError as error:
        note(f"{error}; INT8 is calibrated on the other clips")


def _clip_frames(
    path: Path, limits: LimitOptions, state: tuple[str, int], count: int
) -> Iterator[Frame]:
    reader = VideoReader(path, limits)
    try:
        yield from reader.sample(count)
    finally:
        reader.close()
    if file_state(path) != state:
        raise _changed(path)


class _ChangedError(InputError):
    """A file was written to while the model was calibrated on it."""


def _changed(path: Path) -> InputError:
    return _ChangedError(f"{path}: changed while the model was calibrated on it; run it again")


def _spread(available: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers below `available`, evenly spread."""
    return sorted({round(i) for i in np.linspace(0, available - 1, min(available, wanted))})
