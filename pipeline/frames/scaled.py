"""Draws on frames that are scaled down first: text and lines stay sharp, and less is encoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.config import DEFAULT_DRAWING, DrawOptions, EncodeOptions, ProcessConfig
from pipeline.frames.annotate import Annotator
from pipeline.frames.codecs import annotated_bits
from pipeline.media.color import YUV420P, ToBgr, ToYuv420p
from pipeline.media.frame import PROGRESSIVE, VideoInfo, plane_rows, plane_samples


def annotated_info(info: VideoInfo, options: EncodeOptions) -> VideoInfo:
    """The facts of the annotated file: those of the source, at the size that was asked for.

    Proportions stay, sides of a clip become even, and nothing is scaled up.
    """
    asked = options.output_size
    if asked is None:
        return info
    width, height = info.size_wh
    bounds = (width, asked) if isinstance(asked, int) else asked
    gain = min(bounds[0] / width, bounds[1] / height)
    if gain >= 1:
        return info
    step = 1 if info.is_picture else 2
    scaled_wh = tuple(max(step, step * round(side * gain / step)) for side in (width, height))
    # The lines of two fields are mixed.
    return replace(info, size_wh=(scaled_wh[0], scaled_wh[1]), field_order=PROGRESSIVE)


_DEEP = ("yuv420p10le", "yuv420p12le")
"""Scaled as they are, and then brought to 8 bits."""


class ScaledAnnotator:
    """Scales frames down and draws detections, which are in pixels of the source, on them.

    scaled: the facts of the annotated file.
    """

    def __init__(
        self,
        info: VideoInfo,
        scaled: VideoInfo,
        class_names: Sequence[str],
        draw: DrawOptions = DEFAULT_DRAWING,
        bits: int = 8,
    ) -> None:
        self._size_wh, self._bits = scaled.size_wh, bits
        self._annotate = Annotator(scaled, tuple(class_names), draw, bits)
        self._drawable = ToBgr().frame if info.is_picture else ToYuv420p(info.color, bits)
        factors = np.divide(scaled.size_wh, info.size_wh)
        self._factors = np.tile(factors, 2).astype(np.float32)

    def __call__(self, image: av.VideoFrame, detections: Detections) -> av.VideoFrame:
        """A new frame, as that of `Annotator`."""
        if self._bits > 8 or image.format.name not in _DEEP:
            image = self._drawable(image)
        boxes = replace(detections, xyxy=detections.xyxy * self._factors)
        return self._annotate(self._scaled(image), boxes)

    def _scaled(self, image: av.VideoFrame) -> av.VideoFrame:
        bits = image.format.components[0].bits
        less = bits - self._bits
        kind = YUV420P[self._bits] if less else image.format.name
        scaled = av.VideoFrame(*self._size_wh, kind)
        scaled.colorspace, scaled.color_range = image.colorspace, image.color_range
        scaled.color_trc, scaled.color_primaries = image.color_trc, image.color_primaries
        for source, target in zip(image.planes, scaled.planes, strict=True):
            samples, out = _samples(source, image), _samples(target, scaled)
            resized = cv2.resize(samples, out.shape[1::-1], interpolation=cv2.INTER_AREA)
            out[:] = cv2.convertScaleAbs(resized, alpha=2.0**-less) if less else resized
        return scaled


def _samples(
    plane: av.video.plane.VideoPlane, image: av.VideoFrame
) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """The samples of a plane, (height, width) or (height, width, 3), as a view."""
    if image.format.name == "bgr24":
        return plane_rows(plane)[:, : 3 * plane.width].reshape(plane.height, plane.width, 3)
    return plane_samples(plane, image.format.components[0].bits)


def annotator(
    info: VideoInfo, config: ProcessConfig, class_names: Sequence[str]
) -> Annotator | ScaledAnnotator:
    """What draws on the frames of a source, at the size that was asked for."""
    scaled, bits = annotated_info(info, config.encode), annotated_bits(info, config.encode)
    if scaled is info:
        return Annotator(info, tuple(class_names), config.draw, bits)
    return ScaledAnnotator(info, scaled, class_names, config.draw, bits)
