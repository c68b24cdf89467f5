"""A cheap look at pixels: whether something is in a frame that is in neither of two others."""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
from numpy.typing import NDArray

from pipeline.media.frame import plane_rows

_COLUMNS, _SAMPLES = 48, 4
"""Blocks in a row of a picture, and samples in a row of a block."""

_SMALLEST = 4
"""Something covers at least so many blocks."""

_LEAST_LEVELS, _NOISE_SHARE = 20.0, 3.0
"""By how many levels of 256 these differ from both others, beside so many times the usual."""

_CHANGED_LEVELS, _MOST_CHANGED = 8.0, 0.3
"""Where more blocks differ, by so many levels, the whole picture is another one."""

_CHROMA_OR_ALPHA_FIRST = ("uyvy422", "argb", "abgr", "0rgb", "0bgr")
"""Formats of bytes in which what stands for luma follows a byte of something else."""

Glance = NDArray[np.float32]
"""The mean luma of the blocks of a picture, (rows, columns), 0 to 255."""


def glance(image: av.VideoFrame) -> Glance:
    """Of the first plane: luma, or what stands for it in formats without."""
    component, plane = image.format.components[0], plane_rows(image.planes[0])
    samples: NDArray[np.uint8] | NDArray[np.uint16] = plane
    scale = 1.0
    if component.bits > 8:
        samples = plane[:, : plane.shape[1] // 2 * 2].view(np.uint16)
        # Formats like p010 have their bits at the upper end.
        scale = 256.0 if image.format.name.startswith("p") else 2.0 ** (component.bits - 8)
    per_pixel = 1
    if len(image.planes) == 1:  # The line of a window is as long as that of the whole frame.
        per_pixel = max(1, image.format.padded_bits_per_pixel // (8 * samples.itemsize))
    offset = 1 if image.format.name in _CHROMA_OR_ALPHA_FIRST else 0
    samples = samples[:, offset : image.width * per_pixel : per_pixel]
    step = max(1, image.width // (_COLUMNS * _SAMPLES))
    samples = samples[::step, ::step]
    rows, columns = (max(1, side // _SAMPLES) for side in samples.shape)
    samples = samples[: rows * _SAMPLES, : columns * _SAMPLES]
    blocks = samples.reshape(rows, -1, columns, samples.shape[1] // columns)
    mean: Glance = blocks.mean(axis=(1, 3), dtype=np.float32) / np.float32(scale)
    return mean


def appearance(first: Glance, between: Sequence[Glance], last: Glance) -> int | None:
    """The place of the frame between two others that shows most of what is in neither of them.

    None if nothing appears between them.
    """
    news = [np.minimum(abs(one - first), abs(one - last)) for one in between]
    change = float(abs(last - first).mean())
    amounts = [_amount(new) if _is_appearance(new, change) else 0.0 for new in news]
    most = max(range(len(amounts)), key=amounts.__getitem__, default=None)
    return most if most is not None and amounts[most] else None


def _is_appearance(difference: Glance, change: float) -> bool:
    """Whether there is something new in a part of the picture, or another picture for a while.

    change: the mean difference of the two other frames. Where the camera moves, these differ too.
    """
    if (difference > _CHANGED_LEVELS).mean() > _MOST_CHANGED:
        return bool(difference.mean() > _CHANGED_LEVELS + _NOISE_SHARE * change)
    smallest = min(_SMALLEST, difference.size)
    strong = np.partition(difference, -smallest, axis=None)[-smallest]
    return bool(strong - _NOISE_SHARE * np.median(difference) > _LEAST_LEVELS)


def _amount(difference: Glance) -> float:
    """How much there is of it: its size times its contrast."""
    return float(np.maximum(difference - _CHANGED_LEVELS, 0.0).sum())
