"""HDR frames -> SDR as models were trained on, at the size at which they are looked at.

What was SDR before it was lifted into HDR (BT.2408) becomes what it was, except near white, where
brighter light is squeezed in. Each channel is looked up, mixed, and looked up again.
"""

from __future__ import annotations

from functools import lru_cache

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.media.color import ToRgb48
from pipeline.media.frame import plane_rows
from pipeline.media.hdr import (
    HLG_GAMMA,
    HLG_PEAK_NITS,
    PQ,
    SDR_GAMMA,
    SDR_WHITE_NITS,
    light,
    to_bt709,
)
from pipeline.model.plane_resize import PlaneResizer, resizes_planes

_MOST_WHITES = 1000.0 / SDR_WHITE_NITS
"""The light that becomes white, as all that is brighter does."""
_KNEE = 0.95
"""The level of SDR from which on levels up to that of this light are squeezed in."""
_LEVELS = 4096
_ROWS_AT_ONCE = 16
"""What is computed of them stays in the cache of a core: a third of the time of a whole frame."""
_BT2020_LUMA = np.array([[0.2627, 0.6780, 0.0593]])


class ToneMap:
    """Maps frames in PQ or HLG to SDR; for one thread at a time."""

    def __init__(self) -> None:
        self._to_rgb48 = ToRgb48()
        self._resize_planes = PlaneResizer()

    def __call__(self, image: av.VideoFrame, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
        """The frame at a size, as RGB of BT.709, uint8 (height, width, 3). Raises InputError."""
        return _to_sdr(
            self._samples(image, size_wh), int(image.color_trc), int(image.color_primaries)
        )

    def _samples(self, image: av.VideoFrame, size_wh: tuple[int, int]) -> NDArray[np.uint16]:
        """R'G'B' of the frame at a size, uint16 (height, width, 3)."""
        if resizes_planes(image, size_wh, least_scale=1):
            return self._resize_planes.rgb16(image, size_wh)
        packed = self._to_rgb48.frame(image)
        rows = plane_rows(packed.planes[0]).view(np.uint16)[:, : packed.width * 3]
        samples = rows.reshape(packed.height, packed.width, 3)
        if (packed.width, packed.height) == size_wh:
            return samples
        return np.asarray(cv2.resize(samples, size_wh, interpolation=cv2.INTER_LINEAR), np.uint16)


def _to_sdr(samples: NDArray[np.uint16], trc: int, primaries: int) -> NDArray[np.uint8]:
    levels = np.empty(samples.shape, np.uint8)
    for row in range(0, len(samples), _ROWS_AT_ONCE):
        rows = slice(row, row + _ROWS_AT_ONCE)
        levels[rows] = _rows_to_sdr(samples[rows], trc, primaries)
    return levels


def _rows_to_sdr(samples: NDArray[np.uint16], trc: int, primaries: int) -> NDArray[np.uint8]:
    linear = np.take(_light_table(trc), samples)
    if trc != PQ:  # What HLG shows depends on how bright a pixel is in all.
        luma = cv2.transform(linear, _BT2020_LUMA)
        linear *= cv2.pow(luma, HLG_GAMMA - 1).reshape(*luma.shape[:2], 1)
    mixed = np.asarray(cv2.transform(linear, to_bt709(primaries)), np.float32)
    np.clip(mixed, 0, 1, out=mixed)
    np.sqrt(mixed, out=mixed)  # Dark levels are apart as far as the eye sees them.
    mixed *= _LEVELS - 1
    return np.take(_sdr_table(), mixed.astype(np.uint16))


@lru_cache(maxsize=2)
def _light_table(trc: int) -> NDArray[np.float32]:
    """Light as a share of what becomes white, for each sample of 16 bits."""
    shone = light(np.arange(1 << 16) / ((1 << 16) - 1), trc)
    nits = shone if trc == PQ else shone * HLG_PEAK_NITS
    return (nits / (SDR_WHITE_NITS * _MOST_WHITES)).astype(np.float32)


@lru_cache(maxsize=1)
def _sdr_table() -> NDArray[np.uint8]:
    """Levels of SDR, for the square roots of shares of the light that becomes white."""
    whites = (np.arange(_LEVELS) / (_LEVELS - 1)) ** 2 * _MOST_WHITES
    level, top = whites ** (1 / SDR_GAMMA), _MOST_WHITES ** (1 / SDR_GAMMA)
    room, above = 1 - _KNEE, np.maximum(level - _KNEE, 0)
    # It leaves the knee as steep as it came, and ends at white.
    squeezed = _KNEE + above / (1 + above * (1 / room - 1 / (top - _KNEE)))
    levels = 255 * np.where(level <= _KNEE, level, squeezed)
    return np.asarray(levels.round(), np.uint8)
