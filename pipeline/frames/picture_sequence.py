"""A folder of pictures -> frames at a constant rate."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import av

from pipeline.core.config import DEFAULT_LIMITS, LimitOptions
from pipeline.core.errors import InputError
from pipeline.core.files import real_path
from pipeline.core.picture_sequence import PictureSequence
from pipeline.frames.decode import VideoReader
from pipeline.media.color import ToBgr, tags_of_planes
from pipeline.media.container import check_frame_rate
from pipeline.media.frame import Frame, VideoInfo
from pipeline.media.numbered import NumberedSource


class PictureSequenceSource(NumberedSource):
    """Pictures of one size, each read as a picture by itself is, upright; a FrameSource.

    Frames are bgr24, and pts are the numbers of the pictures, from the first one that is taken on.
    numbers: of the pictures that are taken; None for all. Raises InputError, which names the
    picture, for one that cannot be read, is a film, or has another size than the first.
    """

    def __init__(
        self,
        sequence: PictureSequence,
        limits: LimitOptions = DEFAULT_LIMITS,
        numbers: range | None = None,
    ) -> None:
        super().__init__(range(len(sequence.paths)) if numbers is None else numbers)
        self._limits = limits
        self._to_bgr = ToBgr()
        self._paths = sequence.paths
        check_frame_rate(sequence.folder, sequence.frame_rate, limits)
        image, first = self._read(self._paths[0])
        self.info = dataclasses.replace(
            first,
            name=real_path(sequence.folder).name,
            container="pictures",
            pix_fmt=image.format.name,
            time_base=1 / sequence.frame_rate,
            frame_rate=sequence.frame_rate,
            color=tags_of_planes(image),
            duration_seconds=float(len(self._numbers) / sequence.frame_rate),
            num_frames_header=len(self._numbers),
            num_frames_scanned=None,
            bit_rate=None,
            source_time_base=None,
            is_picture=False,
        )

    def _frames(self, numbers: range) -> Iterator[Frame]:
        for index, number in enumerate(numbers):
            path = self._paths[number]
            image, info = self._read(path)
            if info.size_wh != self.info.size_wh:
                width, height = info.size_wh
                raise InputError(
                    f"{path}: is {width}x{height}, and {self._paths[0].name} "
                    f"{self.info.size_wh[0]}x{self.info.size_wh[1]}: the pictures of one clip "
                    "need one size; leave out --frame-rate to process each by itself"
                )
            pts = number - self._numbers.start
            yield Frame(index, pts, 1, self.info.time_base, image, number)

    def _read(self, path: Path) -> tuple[av.VideoFrame, VideoInfo]:
        """A picture as bgr24, upright, and what there is to know of it."""
        reader = VideoReader(path, self._limits)
        try:
            if not reader.info.is_picture:
                raise InputError(
                    f"{path}: is not a single picture but an animation: process it alone"
                )
            image = next(reader.frames()).image
            bgr = self._to_bgr.frame(image)
            bgr.color_primaries, bgr.color_trc = image.color_primaries, image.color_trc
            return bgr, reader.info
        finally:
            reader.close()
