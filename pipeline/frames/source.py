"""The source of frames that a run asks for: a clip, pictures, or the synthetic scene."""

from __future__ import annotations

from pipeline.core.config import ProcessConfig
from pipeline.frames.decode import VideoReader
from pipeline.frames.picture_sequence import PictureSequenceSource
from pipeline.media.frame import FrameSource
from pipeline.media.timeline import Timeline
from pipeline.synthetic.source import SyntheticSource


def open_source(config: ProcessConfig, cores: int, timeline: Timeline | None = None) -> FrameSource:
    """The frames of a source; half of the cores may decode, the model needs the others.

    timeline: of a clip, where it is known.
    """
    if config.synthetic:
        return SyntheticSource(config.synthetic)
    if config.pictures:
        return PictureSequenceSource(config.pictures, config.limits)
    assert config.clip is not None
    return VideoReader(
        config.clip,
        config.limits,
        num_threads=max(1, cores // 2),
        timeline=timeline,
        deinterlace=config.deinterlace == "auto",
    )
