"""Pictures to calibrate INT8 on: of a folder, or frames of the source."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.core.config import DEFAULT_LIMITS, LimitOptions, ProcessConfig, SyntheticOptions
from pipeline.core.errors import InputError
from pipeline.core.picture_paths import calibration_pictures
from pipeline.core.picture_sequence import PictureSequence
from pipeline.frames.decode import VideoReader
from pipeline.frames.picture_sequence import PictureSequenceSource
from pipeline.media.frame import Frame
from pipeline.media.pictures import decode_picture, picture_bytes
from pipeline.model.quantize import NUM_PICTURES, Calibration
from pipeline.synthetic.source import SyntheticSource

_SAMPLE_BYTES = 1 << 20


def calibration_for(config: ProcessConfig, frame_wh: tuple[int, int]) -> Calibration:
    """The pictures that a run is asked to calibrate on. Raises InputError if there are none."""
    if config.calibration is not None:
        return calibration_of_folder(config.calibration)
    return calibration_of_source(config.source, frame_wh, config.limits)


def calibration_of_folder(folder: Path) -> Calibration:
    """Pictures of a folder, or of images/ in it. Raises InputError if there are none."""
    paths = calibration_pictures(folder)
    chosen = [paths[i] for i in _spread(len(paths), NUM_PICTURES)]
    hashes = [hashlib.sha256(picture_bytes(path)).digest() for path in chosen]
    return Calibration(
        key=hashlib.sha256(b"".join(hashes)).hexdigest(),
        origin=f"{len(chosen)} pictures of {folder.name}",
        frame_wh=None,
        frames=lambda: map(_same_picture, chosen, hashes, range(len(chosen))),
    )


def _same_picture(path: Path, sha256: bytes, index: int) -> Frame:
    content = picture_bytes(path)
    if hashlib.sha256(content).digest() != sha256:
        raise _changed(path)
    return decode_picture(content, path, index)


def calibration_of_source(
    source: Path | PictureSequence | SyntheticOptions,
    frame_wh: tuple[int, int],
    limits: LimitOptions = DEFAULT_LIMITS,
) -> Calibration:
    """Frames of the clip itself, spread over it."""
    if isinstance(source, SyntheticOptions):
        picture = picture_bytes(source.image) if source.image else b""
        return Calibration(
            key=f"{dataclasses.replace(source, image=None)} {hashlib.sha256(picture).hexdigest()}",
            origin="frames of the synthetic clip",
            frame_wh=frame_wh,
            frames=lambda: SyntheticSource(source).sample(NUM_PICTURES),
        )
    if isinstance(source, PictureSequence):
        return Calibration(
            key=hashlib.sha256(repr((source.frame_rate, source.stamp())).encode()).hexdigest(),
            origin=f"pictures of {source.folder.name}",
            frame_wh=frame_wh,
            frames=lambda: PictureSequenceSource(source, limits).sample(NUM_PICTURES),
        )
    state = _clip_state(source)
    return Calibration(
        key=state[0],
        origin=f"frames of {source.name}",
        frame_wh=frame_wh,
        frames=lambda: _clip_frames(source, limits, state),
    )


def _clip_frames(path: Path, limits: LimitOptions, state: tuple[str, int]) -> Iterator[Frame]:
    reader = VideoReader(path, limits)
    try:
        yield from reader.sample(NUM_PICTURES)
    finally:
        reader.close()
    if _clip_state(path) != state:
        raise _changed(path)


def _changed(path: Path) -> InputError:
    return InputError(f"{path}: changed while the model was calibrated on it; run it again")


def _clip_state(path: Path) -> tuple[str, int]:
    """A clip's key, and when it was written to last, in ns."""
    return _clip_key(path), path.stat().st_mtime_ns


def _clip_key(path: Path) -> str:
    """A hash of the length, the beginning and the end: hours of footage are not read in full."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_SAMPLE_BYTES))
        file.seek(max(0, size - _SAMPLE_BYTES))
        digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _spread(available: int, wanted: int) -> list[int]:
    """At most `wanted` of the numbers below `available`, evenly spread."""
    return sorted({round(i) for i in np.linspace(0, available - 1, min(available, wanted))})
