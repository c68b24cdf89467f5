"""The source of frames that a run asks for: a clip, pictures, or the synthetic scene."""

from __future__ import annotations

import contextlib
import functools
from fractions import Fraction

from pipeline.core.config import ProcessConfig
from pipeline.core.errors import InputError
from pipeline.core.position import Beat, no_beat
from pipeline.frames.decode import VideoReader
from pipeline.frames.picture_sequence import PictureSequenceSource
from pipeline.media.frame import FrameSource
from pipeline.media.scan import ClipScan, scan_clip
from pipeline.media.stretch import sliced
from pipeline.media.timeline import Timeline
from pipeline.synthetic.source import SyntheticSource


def scan_source(config: ProcessConfig, beat: Beat = no_beat) -> ClipScan | None:
    """The packets of the frames that a run takes of a clip; None for another source.

    Raises InputError.
    """
    if config.clip is None:
        return None
    if config.slice is None:
        return scan_clip(config.clip, config.limits, config.num_frames, beat)
    scan = scan_clip(config.clip, config.limits, beat=beat)
    decoded_places = functools.partial(_decoded_places, config, scan.timeline, beat)
    return sliced(scan, config.slice, config.clip, decoded_places)


def _decoded_places(config: ProcessConfig, timeline: Timeline, beat: Beat) -> list[int]:
    """Where each frame of a clip is shown, in ticks of the result."""
    assert config.clip is not None
    places = []
    with contextlib.closing(VideoReader(config.clip, config.limits, timeline=timeline)) as reader:
        for frame in reader.frames():
            beat()
            places.append(frame.pts)
    return places


def numbers_taken(config: ProcessConfig) -> range:
    """Which frames a run takes of the synthetic clip, or of pictures. Raises InputError."""
    if config.pictures is not None:
        total, rate = len(config.pictures.paths), config.pictures.frame_rate
    else:
        assert config.synthetic is not None
        total, rate = config.synthetic.num_frames, config.synthetic.frame_rate
    if config.slice is None:
        return range(total)
    taken = config.slice.frames(total, functools.partial(_seconds, rate))
    if not taken:
        raise InputError(
            f"{config.source_name}: no frame lies in {config.slice}: the last one is frame "
            f"{total - 1}, at {float((total - 1) / rate):.3f} s"
        )
    return taken


def _seconds(frame_rate: Fraction, index: int) -> Fraction:
    return index / frame_rate


def open_source(config: ProcessConfig, cores: int, timeline: Timeline | None = None) -> FrameSource:
    """The frames of a source; half of the cores may decode, the model needs the others.

    timeline: of the frames that are taken of a clip, where it is known.
    """
    if config.synthetic:
        return SyntheticSource(config.synthetic, numbers_taken(config))
    if config.pictures:
        return PictureSequenceSource(config.pictures, config.limits, numbers_taken(config))
    assert config.clip is not None
    if timeline is None and config.slice is not None:
        scan = scan_source(config)
        timeline = scan.timeline if scan is not None else None
    return VideoReader(
        config.clip,
        config.limits,
        num_threads=max(1, cores // 2),
        timeline=timeline,
        deinterlace=config.deinterlace == "auto",
    )
