"""Frames made up from a seed, through the same contract as a file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.config import SyntheticOptions
from pipeline.media.frame import ColorTags, Frame, VideoInfo
from pipeline.media.numbered import NumberedSource
from pipeline.media.pictures import read_pixels
from pipeline.synthetic.scene import Scene, Truth

_LIMITED_RANGE, _BT601 = 1, 6

OnTruth = Callable[[int, int, Truth], None]


class SyntheticSource(NumberedSource):
    """A moving scene with known truth, or one picture repeated; a FrameSource.

    The same options give the same frames. Raises InputError for a picture that cannot be read.

    numbers: of the frames that are taken; None for all.
    on_truth: if set, called with what every frame of the scene shows, before the frame
        is given, with the frame's index and pts.
    """

    def __init__(self, options: SyntheticOptions, numbers: range | None = None) -> None:
        super().__init__(range(options.num_frames) if numbers is None else numbers)
        self.on_truth: OnTruth | None = None
        self._options = options
        self._picture = _read_picture(options.image, options.size_wh) if options.image else None
        self.info = VideoInfo(
            name=options.image.name if options.image else "synthetic",
            container="synthetic",
            codec="rawvideo",
            size_wh=options.size_wh,
            pix_fmt="yuv420p",
            time_base=1 / options.frame_rate,
            frame_rate=options.frame_rate,
            sample_aspect_ratio=Fraction(1),
            color=ColorTags(range=_LIMITED_RANGE, space=_BT601),
            rotation_degrees=0,
            duration_seconds=float(len(self._numbers) / options.frame_rate),
            num_frames_header=len(self._numbers),
            bit_rate=None,
            num_audio_streams=0,
            num_subtitle_streams=0,
        )

    def __iter__(self) -> Iterator[Frame]:
        return self.frames()

    def _frames(self, numbers: range) -> Iterator[Frame]:
        scene = Scene(self._options.size_wh, self._options.seed) if self._picture is None else None
        first = self._numbers.start
        for index, number in enumerate(numbers):
            if scene is None:
                assert self._picture is not None
                bgr = self._picture
            else:
                # Placed once for both: drawing the sprites is most of the work.
                things = scene.things(number)
                bgr = scene.draw_things(number, things)
                if self.on_truth:
                    self.on_truth(index, number - first, scene.truth_of(things))
            yield Frame(index, number - first, 1, self.info.time_base, _to_yuv420p(bgr), number)


def _read_picture(path: Path, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    resized = cv2.resize(read_pixels(path), size_wh, interpolation=cv2.INTER_AREA)
    return resized.astype(np.uint8, copy=False)


def _to_yuv420p(bgr: NDArray[np.uint8]) -> av.VideoFrame:
    image = av.VideoFrame.from_ndarray(bgr, format="bgr24")
    image = image.reformat(format="yuv420p", dst_colorspace=5, dst_color_range=1, threads=1)
    image.colorspace, image.color_range = _BT601, _LIMITED_RANGE
    return image
