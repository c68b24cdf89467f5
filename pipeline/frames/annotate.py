"""Draws detections on the planes of a frame, so that no other pixel changes."""

from __future__ import annotations

import colorsys
from functools import lru_cache
from typing import NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.media.color import ToBgr, ToYuv420p
from pipeline.media.frame import ColorTags, VideoInfo, plane_rows

Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LONGEST_NAME = 200
_MOST_LABELS = 4096
"""Busy footage has some thousand: a class and two decimals each."""

_GOLDEN_RATIO = 0.618033988749895
_BT709, _BT2020_NCL, _FULL_RANGE = 1, 9, 2


class _Color(NamedTuple):
    """A sample of each of three planes: Y, U and V, or blue, green and red."""

    y: int
    u: int
    v: int


class Annotator:
    """Draws boxes with class names and confidences, sized to the frames of one source.

    On a clip's 8-bit yuv420p, and on a still picture's bgr24, which keeps its every other pixel.
    """

    def __init__(self, info: VideoInfo, class_names: tuple[str, ...]) -> None:
        # OpenCV ends the process over a lone surrogate; longer names do not fit on a label.
        self._class_names = tuple(
            name[:_LONGEST_NAME].encode("utf-8", "replace").decode() for name in class_names
        )
        self._color_tags = None if info.is_picture else info.color
        self._steps = (1, 1, 1) if info.is_picture else (1, 2, 2)
        self._drawable = ToBgr().frame if info.is_picture else ToYuv420p(info.color)
        shorter = min(info.size_wh)
        # Even widths at even places: each chroma sample stands for 2x2 pixels.
        self._line_px = max(2, 2 * round(shorter * 0.0015))
        self._font_px = max(10, round(shorter * 0.022))
        self._font_scale = cv2.getFontScaleFromHeight(_FONT, self._font_px)
        self._label = lru_cache(maxsize=_MOST_LABELS)(self._render_label)
        self._tables = lru_cache(maxsize=None)(self._text_tables)

    def __call__(self, image: av.VideoFrame, detections: Detections) -> av.VideoFrame:
        """The image as 8-bit yuv420p, or bgr24 of a still picture, with the detections on it.

        A frame without detections is passed on as it is; one with them is copied first if the
        decoder still refers to it.
        """
        image = self._drawable(image)
        if not len(detections):
            return image
        image.make_writable()
        planes = _planes(image)
        corners = _even_corners(detections.xyxy)
        edges = _edges(corners, self._line_px)
        # The most confident comes last, on top of the others.
        for box, rectangles, confidence, class_id in zip(
            corners[::-1].tolist(),
            edges[::-1].tolist(),
            detections.confidence[::-1].tolist(),
            detections.class_id[::-1].tolist(),
            strict=True,
        ):
            _fill(planes, self._steps[1], rectangles, self._color(class_id))
            text = f"{self._class_names[class_id]} {confidence:.2f}"
            self._draw_label(planes, box[0], box[1], self._label(text, class_id))
        return image

    def _draw_label(self, planes: Planes, left: int, top: int, label: Planes) -> None:
        """Above the box where there is room, else inside it; always within the frame."""
        height, width = planes[0].shape
        label_height, label_width = label[0].shape
        x = max(0, min(left, (width - label_width) // 2 * 2))
        y = top - label_height if top >= label_height else top
        y = max(0, min(y, (height - label_height) // 2 * 2))
        for plane, patch, step in zip(planes, label, self._steps, strict=True):
            target = plane[y // step :, x // step :][: patch.shape[0], : patch.shape[1]]
            target[:] = patch[: target.shape[0], : target.shape[1]]

    def _render_label(self, text: str, class_id: int) -> Planes:
        """A filled tag with text on it, as planes of even height and width."""
        scale = self._font_scale
        thickness = max(1, self._line_px // 2)
        (width, height), baseline = cv2.getTextSize(text, _FONT, scale, thickness)
        margin = max(2, self._font_px // 4)
        width, height = (width + 2 * margin + 1) // 2 * 2, (height + baseline + margin + 1) // 2 * 2
        ink = np.zeros((height, width), np.uint8)
        origin = (margin, height - baseline - margin // 2)
        cv2.putText(ink, text, origin, _FONT, scale, 255, thickness, cv2.LINE_AA)
        luma, u, v = self._tables(class_id)
        if self._steps[1] == 1:
            return luma[ink], u[ink], v[ink]
        pairs = ink[::2].astype(np.uint16) + ink[1::2]
        ink_2x2 = pairs[:, ::2] + pairs[:, 1::2]
        return luma[ink], u[ink_2x2], v[ink_2x2]

    def _text_tables(self, class_id: int) -> Planes:
        """The first plane by the ink of a pixel, the others by that of all that share a sample."""
        tag = self._color(class_id)
        is_bright = class_color(class_id, self._color_tags or ColorTags()).y > 120
        text = self._gray(0.0 if is_bright else 1.0)
        share, shared_by = np.arange(256) / 255, self._steps[1] ** 2
        chroma_share = np.arange(255 * shared_by + 1) / (255 * shared_by)
        return (
            _blended(tag.y, text.y, share),
            _blended(tag.u, text.u, chroma_share),
            _blended(tag.v, text.v, chroma_share),
        )

    def _color(self, class_id: int) -> _Color:
        return class_color(class_id, self._color_tags)

    def _gray(self, level: float) -> _Color:
        return _sample(level, level, level, self._color_tags)


@lru_cache(maxsize=4096)
def class_color(class_id: int, tags: ColorTags | None) -> _Color:
    """The colour of a class, the same in every clip: hues a golden ratio apart.

    tags: of the planes that it is for; None for BGR.
    """
    hue = (class_id * _GOLDEN_RATIO) % 1.0
    saturation = (0.85, 0.65, 1.0)[class_id % 3]
    return _sample(*colorsys.hsv_to_rgb(hue, saturation, 0.95), tags)


def _blended(background: int, foreground: int, alpha: NDArray[np.float64]) -> NDArray[np.uint8]:
    mixed = background + (foreground - background) * alpha
    return np.asarray(mixed.round(), np.uint8)


def _sample(red: float, green: float, blue: float, tags: ColorTags | None) -> _Color:
    """RGB in 0..1 -> the 8-bit samples of planes with these tags; of BGR without any."""
    if tags is not None:
        return _to_yuv(red, green, blue, tags)
    return _Color(*(round(255 * level) for level in (blue, green, red)))


def _to_yuv(red: float, green: float, blue: float, tags: ColorTags) -> _Color:
    """RGB in 0..1 -> 8-bit Y, U, V by the matrix and range of the clip (ITU-R BT.601/709/2020)."""
    kr, kb = {_BT709: (0.2126, 0.0722), _BT2020_NCL: (0.2627, 0.0593)}.get(
        tags.space, (0.299, 0.114)
    )
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    full = tags.range == _FULL_RANGE
    y_scale, y_offset, c_scale = (255, 0, 255) if full else (219, 16, 224)
    chroma = (min(255, round(128 + c_scale * value)) for value in (cb, cr))
    return _Color(round(y_offset + y_scale * luma), *chroma)


def _planes(image: av.VideoFrame) -> Planes:
    """Writable views of the Y, U and V planes, or of B, G and R, without their line padding."""
    if image.format.name == "bgr24":
        rows = plane_rows(image.planes[0])[:, : image.width * 3]
        return rows[:, 0::3], rows[:, 1::3], rows[:, 2::3]
    y, u, v = (plane_rows(plane)[:, : plane.width] for plane in image.planes)
    return y, u, v


def _even_corners(xyxy: NDArray[np.float32]) -> NDArray[np.int64]:
    """The smallest rectangles (N, 4) on the 2x2 chroma grid that hold the boxes."""
    halves = xyxy / np.float32(2)
    np.floor(halves[:, :2], out=halves[:, :2])
    np.ceil(halves[:, 2:], out=halves[:, 2:])
    return np.asarray(halves.astype(np.int64) * 2)


def _edges(corners: NDArray[np.int64], line_px: int) -> NDArray[np.int64]:
    """The four sides of every box as rectangles: (N, 4, 4), none with a negative corner."""
    left, top, right, bottom = corners.T
    above, below = np.minimum(top + line_px, bottom), np.maximum(top, bottom - line_px)
    near, far = np.minimum(left + line_px, right), np.maximum(left, right - line_px)
    sides = (
        (left, top, right, above),
        (left, below, right, bottom),
        (left, top, near, bottom),
        (far, top, right, bottom),
    )
    return np.asarray(np.maximum(np.array(sides).transpose(2, 0, 1), 0))


def _fill(planes: Planes, step: int, rectangles: list[list[int]], color: _Color) -> None:
    """Paint rectangles with corners on the chroma grid; what lies outside is left out.

    step: how many pixels share a sample of the second and third plane, in each direction.
    """
    for x0, y0, x1, y1 in rectangles:
        planes[0][y0:y1, x0:x1] = color.y
        chroma = slice(y0 // step, y1 // step), slice(x0 // step, x1 // step)
        planes[1][chroma] = color.u
        planes[2][chroma] = color.v
