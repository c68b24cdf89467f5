"""Frames made up from a seed, through the same contract as a file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.config import SyntheticOptions
from pipeline.errors import InputError
from pipeline.frames import ColorTags, Frame, SourceFaults, VideoInfo

_NUM_SHAPES = 12
_GROUND_MARGIN_PX = 64
_LIMITED_RANGE, _BT601 = 1, 6


@dataclass(frozen=True, slots=True)
class _Shape:
    """A thing that moves in a straight line and bounces off the borders."""

    kind: str
    radius_px: int
    color_bgr: tuple[int, int, int]
    start_xy: tuple[float, float]
    velocity_xy: tuple[float, float]

    def centre(self, index: int, size_wh: tuple[int, int]) -> tuple[int, int]:
        x, y = (
            _bounce(start + velocity * index, length)
            for start, velocity, length in zip(
                self.start_xy, self.velocity_xy, size_wh, strict=True
            )
        )
        return round(x), round(y)

    def draw(self, canvas: NDArray[np.uint8], centre: tuple[int, int]) -> None:
        x, y, r = *centre, self.radius_px
        if self.kind == "disc":
            cv2.circle(canvas, centre, r, self.color_bgr, -1, cv2.LINE_AA)
        elif self.kind == "box":
            cv2.rectangle(canvas, (x - r, y - r), (x + r, y + r), self.color_bgr, -1)
        else:
            corners = np.array([(x, y - r), (x + r, y + r), (x - r, y + r)], np.int32)
            cv2.fillConvexPoly(canvas, corners, self.color_bgr, cv2.LINE_AA)


class SyntheticSource:
    """Shapes moving over a drifting textured ground, or one picture repeated; a FrameSource.

    The same options give the same frames. Raises InputError for a picture that cannot be read.
    """

    def __init__(self, options: SyntheticOptions) -> None:
        self.faults = SourceFaults()
        self._options = options
        self._picture = _read_picture(options) if options.image else None
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
            duration_seconds=float(options.num_frames / options.frame_rate),
            num_frames_header=options.num_frames,
            bit_rate=None,
            num_audio_streams=0,
            num_subtitle_streams=0,
        )

    def __iter__(self) -> Iterator[Frame]:
        paint = self._repeat() if self._picture is not None else self._scene()
        for index, bgr in zip(range(self._options.num_frames), paint, strict=False):
            yield Frame(index, index, 1, self.info.time_base, _to_yuv420p(bgr))

    def close(self) -> None:
        """Nothing to release."""

    def _repeat(self) -> Iterator[NDArray[np.uint8]]:
        assert self._picture is not None
        while True:
            yield self._picture

    def _scene(self) -> Iterator[NDArray[np.uint8]]:
        random = np.random.default_rng(self._options.seed)
        width, height = self._options.size_wh
        ground = _textured_ground(random, width + _GROUND_MARGIN_PX, height + _GROUND_MARGIN_PX)
        shapes = [self._random_shape(random) for _ in range(_NUM_SHAPES)]
        for index in range(self._options.num_frames):
            drift = round(_bounce(index * 0.5, _GROUND_MARGIN_PX))
            canvas = ground[drift : drift + height, drift : drift + width].copy()
            for shape in shapes:
                shape.draw(canvas, shape.centre(index, self._options.size_wh))
            yield canvas

    def _random_shape(self, random: np.random.Generator) -> _Shape:
        width, height = self._options.size_wh
        shorter = min(width, height)
        return _Shape(
            kind=str(random.choice(["disc", "box", "triangle"])),
            radius_px=int(random.integers(max(2, shorter // 24), max(4, shorter // 6))),
            color_bgr=(
                int(random.integers(40, 256)),
                int(random.integers(40, 256)),
                int(random.integers(40, 256)),
            ),
            start_xy=(float(random.uniform(0, width)), float(random.uniform(0, height))),
            velocity_xy=(
                float(random.uniform(-0.012, 0.012) * shorter),
                float(random.uniform(-0.012, 0.012) * shorter),
            ),
        )


def _bounce(position: float, length: int) -> float:
    """Fold an unbounded position back and forth into 0..length."""
    return abs((position + length) % (2 * length) - length)


def _textured_ground(random: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    cells = (height // 32 + 1, width // 32 + 1)
    coarse = random.integers(80, 140, (*cells, 1)) + random.integers(-12, 13, (*cells, 3))
    smooth = cv2.resize(coarse.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    grain = random.integers(0, 24, (height, width, 1), np.uint8)
    ground: NDArray[np.uint8] = np.clip(smooth + (grain - 12.0), 0, 255).astype(np.uint8)
    return ground


def _read_picture(options: SyntheticOptions) -> NDArray[np.uint8]:
    picture = cv2.imread(str(options.image), cv2.IMREAD_COLOR)
    if picture is None:
        raise InputError(f"{options.image}: not a picture that can be read")
    resized = cv2.resize(picture, options.size_wh, interpolation=cv2.INTER_AREA)
    return resized.astype(np.uint8, copy=False)


def _to_yuv420p(bgr: NDArray[np.uint8]) -> av.VideoFrame:
    image = av.VideoFrame.from_ndarray(bgr, format="bgr24")
    image = image.reformat(format="yuv420p", dst_colorspace=5, dst_color_range=1, threads=1)
    image.colorspace, image.color_range = _BT601, _LIMITED_RANGE
    return image
