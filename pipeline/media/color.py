"""Pixels and colour tags: what the model sees of a frame, and what the encoder takes of it."""

from __future__ import annotations

from functools import lru_cache

import av
import numpy as np
from av.video.reformatter import Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from pipeline.core.errors import InputError
from pipeline.media.frame import ColorTags, plane_rows

_UNSPECIFIED, _LIMITED, _FULL = 2, 1, 2
_BT601, _BT2020_NCL, _BT2020_CL = 6, 9, 10
_LAST_MATRIX, _LAST_PRIMARIES, _EBU3213, _LAST_TRC = 14, 12, 22, 18

_CONVERTIBLE = frozenset((0, 1, 2, 4, 5, 6, 7, 9))
"""The matrix tags that swscale takes; it refuses frames with any other."""

_LUMA_WEIGHTS = {1: (0.2126, 0.0722), 4: (0.3, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}
_BT601_WEIGHTS = (0.299, 0.114)
_SQUARE_PX, _NUM_SQUARES = 8, 16

YUV420P = {8: "yuv420p", 10: "yuv420p10le"}
"""The pixel formats of annotated clips, by the bits of their samples."""

_RGB_IS_BGR = frozenset(("yuv420p", "yuvj420p", "yuv422p", "yuvj422p"))


def is_rgb(pixel_format: av.VideoFormat) -> bool:
    """Whether its Y'CbCr has to be computed: RGB, palettes, Bayer patterns, XYZ."""
    return pixel_format.is_rgb or pixel_format.has_palette or pixel_format.name.startswith("xyz")


def rgb_is_bgr(image: av.VideoFrame) -> bool:
    """Whether swscale makes the same values of it in RGB as in BGR."""
    even = image.width % 2 == image.height % 2 == 0
    return even and image.format.name in _RGB_IS_BGR


def is_gray(pixel_format: av.VideoFormat) -> bool:
    """Whether it holds luma alone, with or without alpha."""
    return len(pixel_format.components) <= 2 and not is_rgb(pixel_format)


def tags_of_planes(image: av.VideoFrame) -> ColorTags:
    """The tags that describe the 8-bit yuv420p planes that `ToYuv420p` makes of an image.

    They are those of the image where these are valid for such planes. RGB becomes BT.601 of
    limited range. Grey without a tag is of full range, as FFmpeg reads it.
    """
    pixel_format, range_ = image.format, int(image.color_range)
    if is_rgb(pixel_format):
        range_ = _LIMITED
    elif pixel_format.name.startswith("yuvj") or (not range_ and is_gray(pixel_format)):
        range_ = _FULL
    primaries = int(image.color_primaries)
    return ColorTags(
        range=range_,
        primaries=primaries if primaries == _EBU3213 else _valid(primaries, _LAST_PRIMARIES),
        trc=_valid(int(image.color_trc), _LAST_TRC),
        space=_matrix_of_planes(image),
    )


def color_warnings(image: av.VideoFrame, *, needs_dolby_vision: bool = False) -> tuple[str, ...]:
    """What is lost or doubtful in the colours of a clip, one line each.

    needs_dolby_vision: whether the container says that its colours are of no other standard.
    """
    warnings = []
    if any(component.is_alpha for component in image.format.components):
        warnings.append(
            "the clip has an alpha channel, which the result does not keep: every pixel is shown "
            "as if it were opaque"
        )
    if needs_dolby_vision:
        warnings.append(
            "the clip is Dolby Vision, whose colours are read without its metadata and may be "
            "wrong: convert it to BT.709 first if boxes are missing"
        )
    matrix = int(image.colorspace)
    if not is_rgb(image.format) and not is_gray(image.format):
        if _valid(matrix, _LAST_MATRIX) != matrix:
            warnings.append(
                f"the clip has a colour matrix tag ({matrix}) that is not valid for its pixels: "
                "they are read, and tagged in the result, as BT.601"
            )
        elif matrix in (8, 11, 12, 13, 14):
            warnings.append(
                f"the clip has a colour matrix ({matrix}) that is not supported: the model sees it "
                "as BT.601; convert the clip to BT.709 first if boxes are missing"
            )
    return tuple(warnings)


def luma_weights(matrix: int) -> tuple[float, float]:
    """The shares of red and blue in luma, by the tag of a matrix; BT.601's if swscale has none."""
    return _LUMA_WEIGHTS.get(matrix, _BT601_WEIGHTS)


def make_convertible(image: av.VideoFrame) -> None:
    """Change a matrix tag that swscale refuses to the nearest that it takes."""
    matrix = int(image.colorspace)
    if matrix not in _CONVERTIBLE:
        image.colorspace = _BT2020_NCL if matrix == _BT2020_CL else _BT601


class _ToPacked:
    """Converts frames to three samples a pixel, one after the other; for one thread at a time."""

    def __init__(self, pixel_format: str) -> None:
        self._pixel_format = pixel_format
        self._reformatter = VideoReformatter()

    def __call__(self, image: av.VideoFrame) -> NDArray[np.uint8]:
        """The pixels, uint8 (height, width, 3). Raises InputError."""
        packed = self.frame(image)
        rows = plane_rows(packed.planes[0])[:, : packed.width * 3]
        return rows.reshape(packed.height, packed.width, 3)

    def frame(self, image: av.VideoFrame) -> av.VideoFrame:
        """The frame in this format; one that is so already is passed on. Raises InputError."""
        try:
            return self._reformatter.reformat(
                image,
                format=self._pixel_format,
                interpolation=Interpolation.BICUBIC,
                threads=1,  # swscale would otherwise start one per core on every call.
            )
        except av.FFmpegError as error:
            raise InputError(
                f"FFmpeg does not convert pixels of the format {image.format.name}: convert the "
                "clip to yuv420p first"
            ) from error


class ToBgr(_ToPacked):
    """Converts frames to BGR as OpenCV's reader of clips does."""

    def __init__(self) -> None:
        super().__init__("bgr24")


class ToRgb(_ToPacked):
    """The same as RGB, in one pass; only of frames of which `rgb_is_bgr`.

    Of others, swscale rounds RGB otherwise than BGR.
    """

    def __init__(self) -> None:
        super().__init__("rgb24")


class ToRgb48(_ToPacked):
    """Converts frames to RGB of 16 bits; `frame` gives them."""

    def __init__(self) -> None:
        super().__init__("rgb48le")


def rgb_from_planes(image: av.VideoFrame) -> NDArray[np.float64]:
    """The matrix (3, 4) by which (Y, Cb, Cr, 1) of an image's own depth become 8-bit R, G, B.

    On average they are as swscale makes them, whose sums lose up to a level.
    """
    odd_wh = (image.width % 2, image.height % 2)  # For which swscale takes other ways.
    return _rgb_from_planes(
        image.format.name, int(image.colorspace), int(image.color_range), odd_wh
    )


@lru_cache(maxsize=16)
def _rgb_from_planes(
    name: str, space: int, color_range: int, odd_wh: tuple[int, int]
) -> NDArray[np.float64]:
    bits = av.VideoFormat(name).components[0].bits
    kr, kb = luma_weights(space)
    if color_range == _FULL or name.startswith("yuvj"):
        black, luma, chroma = 0.0, 255 / (2**bits - 1), 255 / (2**bits - 1)
    else:
        unit = 2 ** (bits - 8)
        black, luma, chroma = 16.0 * unit, 255 / (219 * unit), 255 / (224 * unit)
    red, blue = 2 * (1 - kr) * chroma, 2 * (1 - kb) * chroma
    green = np.array((-blue * kb, -red * kr)) / (1 - kr - kb)
    matrix = np.array([(luma, 0, red), (luma, *green), (luma, blue, 0)])
    middle = np.array((black, 2 ** (bits - 1), 2 ** (bits - 1)))
    matrix = np.column_stack([matrix, -matrix @ middle])
    image, colors = _squares(name, odd_wh)
    image.colorspace, image.color_range = space, color_range
    middles = slice(_SQUARE_PX // 2, _NUM_SQUARES * _SQUARE_PX, _SQUARE_PX)
    shown = ToBgr()(image)[middles, middles, ::-1]
    matrix[:, 3] += (shown.reshape(-1, 3) - colors @ matrix.T).mean(axis=0)
    return matrix


def _squares(name: str, odd_wh: tuple[int, int]) -> tuple[av.VideoFrame, NDArray[np.float64]]:
    """An image of squares of a colour each, and their (Y, Cb, Cr, 1); none is beyond RGB.

    odd_wh: pixels that its width and height have besides.
    """
    width, height = (_NUM_SQUARES * _SQUARE_PX + odd for odd in odd_wh)
    image, random = av.VideoFrame(width, height, name), np.random.default_rng(0)
    unit = 2 ** (image.format.components[0].bits - 8)
    colors = np.ones((_NUM_SQUARES**2, 4))
    for number, (low, high) in enumerate(((70, 180), (100, 156), (100, 156))):
        levels = random.integers(low * unit, high * unit, (_NUM_SQUARES, _NUM_SQUARES))
        colors[:, number] = levels.ravel()
        plane = image.planes[number]
        rows, columns = (
            np.minimum(np.arange(size) // (size // _NUM_SQUARES), _NUM_SQUARES - 1)
            for size in (plane.height, plane.width)
        )
        samples = plane_rows(plane).view(np.uint8 if unit == 1 else np.uint16)
        samples[:, : plane.width] = levels[np.ix_(rows, columns)]
    return image, colors


class ToYuv420p:
    """Converts frames to the planes that `tags_of_planes` describes; for one thread at a time.

    bits: of a sample, 8 or 10.
    """

    def __init__(self, tags: ColorTags, bits: int = 8) -> None:
        self._tags = tags
        self._pix_fmt = YUV420P[bits]
        self._reformatter = VideoReformatter()

    def __call__(self, image: av.VideoFrame) -> av.VideoFrame:
        """The frame as yuv420p of this depth; one that is so already is passed on."""
        if image.format.name == self._pix_fmt:
            return image
        return self._reformatter.reformat(
            image,
            format=self._pix_fmt,
            # One matrix on both sides: planes of Y'CbCr are not mixed, whatever theirs is.
            src_colorspace=Colorspace.ITU601,
            dst_colorspace=Colorspace.ITU601,
            interpolation=Interpolation.BICUBIC,
            src_color_range=self._tags.range,
            # swscale takes every grey source as full range: then it must not convert.
            dst_color_range=_FULL if is_gray(image.format) else self._tags.range,
            threads=1,
        )


def _matrix_of_planes(image: av.VideoFrame) -> int:
    if is_rgb(image.format):
        return _BT601
    matrix = _valid(int(image.colorspace), _LAST_MATRIX)
    if matrix != int(image.colorspace) or (matrix == _UNSPECIFIED and is_gray(image.format)):
        return _BT601  # As swscale reads what has no valid tag; any matrix describes grey.
    return matrix


def _valid(value: int, last: int) -> int:
    """A number of ISO/IEC 23091-2, or "unspecified" for those that it reserves."""
    return value if 0 < value <= last and value != 3 else _UNSPECIFIED
