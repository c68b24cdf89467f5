"""The source of frames that a run asks for: a clip, pictures, or the synthetic scene."""

from __future__ import annotations

from pipeline.core.config import ProcessConfig, SyntheticOptions
from pipeline.core.picture_sequence import PictureSequence
from pipeline.frames.decode import VideoReader
from pipeline.frames.picture_sequence import PictureSequenceSource
from pipeline.media.frame import FrameSource
from pipeline.media.timeline import Timeline
from pipeline.synthetic.source import SyntheticSource


def open_source(config: ProcessConfig, cores: int, timeline: Timeline | None = None) -> FrameSource:
    """The frames of a source; half of the cores may decode, the model needs the others.

    timeline: of a clip, where it is known.
    """
    if isinstance(config.source, SyntheticOptions):
        return SyntheticSource(config.source)
    if isinstance(config.source, PictureSequence):
        return PictureSequenceSource(config.source, config.limits)
    return VideoReader(
        config.source,
        config.limits,
        num_threads=max(1, cores // 2),
        timeline=timeline,
        deinterlace=config.deinterlace == "auto",
    )
