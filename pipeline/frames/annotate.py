"""Draws detections on the planes of a frame, so that no other pixel changes."""

from __future__ import annotations

import colorsys
import dataclasses
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import NO_TRACK, Detections
from pipeline.core.config import DEFAULT_DRAWING, DrawOptions
from pipeline.frames.drawable_text import FONT, drawable_name
from pipeline.frames.labels import Corners, place_labels
from pipeline.media.color import ToBgr, ToYuv420p
from pipeline.media.frame import ColorTags, VideoInfo, plane_rows, plane_samples
from pipeline.media.hdr import Triple, is_hdr, lifted

Planes = tuple[NDArray[np.uint8] | NDArray[np.uint16], ...]
"""Y, U and V of a clip's frame, (height, width) each; or BGR of a picture, (height, width, 3).

Samples of 10 bits are uint16.
"""
_MOST_LABELS = 4096
"""Busy footage has some thousand: a class and two decimals each."""

_GOLDEN_RATIO = 0.618033988749895
_BT709, _BT2020_NCL, _FULL_RANGE = 1, 9, 2


class _Color(NamedTuple):
    """A sample of Y, U and V, or of blue, green and red."""

    y: int
    u: int
    v: int


class Annotator:
    """Draws boxes with class names, track ids and confidences, sized to the frames of one source.

    On a clip's yuv420p, and on a still picture's bgr24, which keeps its every other pixel.

    bits: of a sample, 8 or 10.
    """

    def __init__(
        self,
        info: VideoInfo,
        class_names: tuple[str, ...],
        draw: DrawOptions = DEFAULT_DRAWING,
        bits: int = 8,
    ) -> None:
        self._bits = bits
        self._draw = draw
        self._class_names = tuple(
            drawable_name(name, class_id) for class_id, name in enumerate(class_names)
        )
        self._color_tags = None if info.is_picture else info.color
        self._size_wh = info.size_wh
        self._drawable = ToBgr().frame if info.is_picture else ToYuv420p(info.color, bits)
        shorter = min(info.size_wh)
        # Even widths at even places: each chroma sample stands for 2x2 pixels.
        usual_px = max(2, 2 * round(shorter * 0.0015))
        step = 1 if info.is_picture else 2
        self._line_px = usual_px if draw.line_width is None else -(-draw.line_width // step) * step
        self._text_px = max(1, usual_px // 2)
        self._font_px = max(10, round(shorter * 0.022))
        self._font_scale = cv2.getFontScaleFromHeight(FONT, self._font_px)
        self._label = lru_cache(maxsize=_MOST_LABELS)(self._render_label)
        self._tables = lru_cache(maxsize=None)(self._text_tables)

    def __call__(self, image: av.VideoFrame, detections: Detections) -> av.VideoFrame:
        """The image as yuv420p, or bgr24 of a still picture, with the detections on it.

        A frame without detections is passed on as it is; one with them is copied first if the
        decoder still refers to it.
        """
        image = self._drawable(image)
        if not len(detections):
            return image
        image.make_writable()
        planes = _planes(image)
        corners = [_on_chroma_grid(*box) for box in detections.xyxy.tolist()]
        class_ids, confidences = detections.class_id.tolist(), detections.confidence.tolist()
        # The most confident comes last, on top of the others.
        for box, class_id in zip(reversed(corners), reversed(class_ids), strict=True):
            self._draw_box(planes, box, self._color(class_id))
        if not self._draw.show_labels:
            return image
        labels = [
            self._label(self._text(class_id, track, confidence), class_id)
            for class_id, track, confidence in zip(
                class_ids, _track_words(detections), confidences, strict=True
            )
        ]
        sizes = [label[0].shape[1::-1] for label in labels]
        places = self._places(corners, sizes)
        for place, label in zip(reversed(places), reversed(labels), strict=True):
            _draw_label(planes, place, label)
        return image

    def _text(self, class_id: int, track: str, confidence: float) -> str:
        number = f" {confidence:.2f}" if self._draw.show_conf else ""
        return f"{self._class_names[class_id]}{track}{number}"

    def _places(
        self, boxes: Sequence[Corners], sizes_px: Sequence[tuple[int, ...]]
    ) -> list[tuple[int, int]]:
        width, height = self._size_wh
        # A label in a frame of odd size ends before its last row and column, or fills it.
        frame_wh = (max(1, width // 2), max(1, height // 2))
        sizes = [
            (min(label_width // 2, frame_wh[0]), min(label_height // 2, frame_wh[1]))
            for label_width, label_height in sizes_px
        ]
        return place_labels(boxes, sizes, frame_wh)

    def _draw_box(self, planes: Planes, corners: Corners, color: _Color) -> None:
        """Its sides, inwards from the corners, as far as they are in the frame."""
        samples: Sequence[int | _Color] = (color,) if len(planes) == 1 else color
        _outline(planes[:1], samples[:1], corners, 2, self._line_px)
        _outline(planes[1:], samples[1:], corners, 1, self._line_px // 2)

    def _render_label(self, text: str, class_id: int) -> Planes:
        """A filled tag with text on it, of even height and width unless the frame is smaller."""
        scale = self._font_scale
        (width, height), baseline = cv2.getTextSize(text, FONT, scale, self._text_px)
        margin = max(2, self._font_px // 4)
        width, height = (width + 2 * margin + 1) // 2 * 2, (height + baseline + margin + 1) // 2 * 2
        ink = np.zeros((height, width), np.uint8)
        origin = (margin, height - baseline - margin // 2)
        cv2.putText(ink, text, origin, FONT, scale, 255, self._text_px, cv2.LINE_AA)
        width, height = self._size_wh
        y, u, v = self._tables(class_id)
        if self._color_tags is None:
            pixels = np.stack((y[ink], u[ink], v[ink]), axis=2)[:height, :width]
            return (pixels.astype(np.uint8, copy=False),)
        pairs = ink[::2].astype(np.uint16) + ink[1::2]
        ink_2x2 = (pairs[:, ::2] + pairs[:, 1::2])[: (height + 1) // 2, : (width + 1) // 2]
        return y[ink[:height, :width]], u[ink_2x2], v[ink_2x2]

    def _text_tables(self, class_id: int) -> Planes:
        """The first sample by the ink of a pixel, the others by that of all that share them."""
        tag = self._color(class_id)
        # As it looks in SDR: in HDR its luma is on another curve.
        tags = dataclasses.replace(self._color_tags or ColorTags(), trc=ColorTags().trc)
        is_bright = class_color(class_id, tags).y > 120
        text = self._gray(0.0 if is_bright else 1.0)
        share, shared_by = np.arange(256) / 255, 1 if self._color_tags is None else 4
        chroma_share = np.arange(255 * shared_by + 1) / (255 * shared_by)
        return (
            _blended(tag.y, text.y, share, self._bits),
            _blended(tag.u, text.u, chroma_share, self._bits),
            _blended(tag.v, text.v, chroma_share, self._bits),
        )

    def _color(self, class_id: int) -> _Color:
        return class_color(class_id, self._color_tags, self._bits)

    def _gray(self, level: float) -> _Color:
        return _sample((level, level, level), self._color_tags, self._bits)


def _draw_label(planes: Planes, place: tuple[int, int], label: Planes) -> None:
    """place: of its left top corner, on the grid."""
    for number, (plane, patch) in enumerate(zip(planes, label, strict=True)):
        x, y = (place[0] * 2, place[1] * 2) if number == 0 else place
        plane[y : y + patch.shape[0], x : x + patch.shape[1]] = patch


def _track_words(detections: Detections) -> list[str]:
    """What the label of each box says of its track."""
    if detections.track_id is None:
        return [""] * len(detections)
    return ["" if number == NO_TRACK else f" {number}" for number in detections.track_id.tolist()]


@lru_cache(maxsize=4096)
def class_color(class_id: int, tags: ColorTags | None, bits: int = 8) -> _Color:
    """The colour of a class, the same in every clip: hues a golden ratio apart.

    tags: of the planes that it is for; None for BGR. bits: of a sample.
    """
    hue = (class_id * _GOLDEN_RATIO) % 1.0
    saturation = (0.85, 0.65, 1.0)[class_id % 3]
    return _sample(colorsys.hsv_to_rgb(hue, saturation, 0.95), tags, bits)


def _blended(
    background: int, foreground: int, alpha: NDArray[np.float64], bits: int
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    mixed = (background + (foreground - background) * alpha).round()
    return np.asarray(mixed, np.uint8) if bits == 8 else np.asarray(mixed, np.uint16)


def _sample(rgb: Triple, tags: ColorTags | None, bits: int) -> _Color:
    """RGB in 0..1 -> the samples of planes with these tags; 8-bit BGR without any.

    Planes of HDR get it as bright as SDR is shown beside HDR, not as their brightest light.
    """
    if tags is not None:
        return _to_yuv(lifted(rgb, tags) if is_hdr(tags.trc) else rgb, tags, bits)
    return _Color(*(round(255 * level) for level in reversed(rgb)))


def _to_yuv(rgb: Triple, tags: ColorTags, bits: int) -> _Color:
    """RGB in 0..1 -> Y, U, V by the matrix and range of the clip (ITU-R BT.601/709/2020)."""
    red, green, blue = rgb
    kr, kb = {_BT709: (0.2126, 0.0722), _BT2020_NCL: (0.2627, 0.0593)}.get(
        tags.space, (0.299, 0.114)
    )
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    cb, cr = (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))
    full, unit, most = tags.range == _FULL_RANGE, 1 << bits - 8, (1 << bits) - 1
    y_scale, y_offset, c_scale = (most, 0, most) if full else (219 * unit, 16 * unit, 224 * unit)
    chroma = (min(most, round(128 * unit + c_scale * value)) for value in (cb, cr))
    return _Color(round(y_offset + y_scale * luma), *chroma)


def _planes(image: av.VideoFrame) -> Planes:
    """Writable views of the planes of a frame, without their line padding."""
    if image.format.name == "bgr24":
        rows = plane_rows(image.planes[0])[:, : image.width * 3]
        return (rows.reshape(image.height, image.width, 3),)
    bits = image.format.components[0].bits
    return tuple(plane_samples(plane, bits) for plane in image.planes)


def _on_chroma_grid(left: float, top: float, right: float, bottom: float) -> Corners:
    """The smallest rectangle on the grid that holds a box."""
    return (
        math.floor(left / 2),
        math.floor(top / 2),
        math.ceil(right / 2),
        math.ceil(bottom / 2),
    )


def _outline(
    planes: Planes,
    samples: Sequence[int | _Color],
    corners: Corners,
    scale: int,
    line: int,
) -> None:
    """Draw a rectangle with lines of `line` samples, or fill it where these are wider.

    scale: samples of these planes to a unit of the grid.
    """
    left, top, right, bottom = corners
    left, top, right, bottom = left * scale, top * scale, right * scale - 1, bottom * scale - 1
    for _ in range(line):
        if left > right or top > bottom:
            return
        for plane, sample in zip(planes, samples, strict=True):
            cv2.rectangle(plane, (left, top), (right, bottom), sample)
        left, top, right, bottom = left + 1, top + 1, right - 1, bottom - 1
