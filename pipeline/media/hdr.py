"""HDR: what a clip says of the display and the light of its pictures, and how its samples shine.

PQ and HLG as in ITU-R BT.2100; SDR within HDR as in BT.2408: its white at 203 cd/m2, shown with the
gamma of BT.1886.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.media.frame import ColorTags, HdrMetadata

PQ, HLG = 16, 18
HDR_NAMES = {PQ: "PQ", HLG: "HLG"}
"""The transfers of HDR, by their numbers of ISO/IEC 23091-2."""

SDR_GAMMA, SDR_WHITE_NITS = 2.4, 203.0
PQ_PEAK_NITS, HLG_PEAK_NITS, HLG_GAMMA = 10_000.0, 1000.0, 1.2
_BT2020_LUMA = np.array((0.2627, 0.6780, 0.0593))

_D65 = (0.3127, 0.3290)
_PRIMARIES_XY = {
    "BT.709": ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)),
    "BT.2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    "P3": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_NARROW, _P3 = frozenset((1, 4, 5, 6, 7)), frozenset((11, 12))

_XY_UNITS, _NIT_UNITS = 50_000, 10_000
_MASTERING = struct.Struct("=20i2i")
"""FFmpeg's AVMasteringDisplayMetadata: fractions of x and y of red, green, blue and white, of the
least and the most luminance; then whether there are colours, and luminances."""
_LIGHT_LEVEL = struct.Struct("=2I")

Triple = tuple[float, float, float]


def hdr_metadata(side_data: Mapping[Any, Any]) -> HdrMetadata | None:
    """What the side data of a picture has of it; None if it has neither part complete."""
    mastering, light_level = None, None
    if "MASTERING_DISPLAY_METADATA" in side_data:
        values = _fields(_MASTERING, side_data["MASTERING_DISPLAY_METADATA"])
        if values is not None and all(values[20:]) and all(values[1:20:2]):
            shares = [
                above / below for above, below in zip(values[0:20:2], values[1:20:2], strict=True)
            ]
            colors = [round(share * _XY_UNITS) for share in shares[:8]]
            least, most = (round(share * _NIT_UNITS) for share in shares[8:])
            mastering = (*colors, most, least)
    if "CONTENT_LIGHT_LEVEL" in side_data:
        levels = _fields(_LIGHT_LEVEL, side_data["CONTENT_LIGHT_LEVEL"])
        if levels is not None:
            light_level = (levels[0], levels[1])
    if mastering is None and light_level is None:
        return None
    return HdrMetadata(mastering, light_level)


def _fields(form: struct.Struct, data: Any) -> tuple[int, ...] | None:
    content = bytes(data)
    return form.unpack_from(content) if len(content) >= form.size else None


def is_hdr(trc: int) -> bool:
    """Whether a transfer is one of HDR."""
    return trc in HDR_NAMES


def light(signal: NDArray[Any], trc: int) -> NDArray[Any]:
    """What R', G' or B' in 0..1 mean: of PQ cd/m2 of a display, of HLG 0..1 of a scene."""
    if trc == PQ:
        m1, m2, c1, c2, c3 = _PQ
        root = np.power(signal, 1 / m2)
        return np.asarray(
            PQ_PEAK_NITS * np.power(np.maximum(root - c1, 0) / (c2 - c3 * root), 1 / m1)
        )
    a, b, c = _HLG
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def lifted(rgb: Triple, tags: ColorTags) -> Triple:
    """A colour of SDR, R'G'B' of BT.709 in 0..1, as it is in HDR with these tags."""
    linear = np.linalg.inv(to_bt709(tags.primaries)) @ np.power(rgb, SDR_GAMMA) * SDR_WHITE_NITS
    linear = np.clip(linear, 0, None)
    if tags.trc == PQ:
        m1, m2, c1, c2, c3 = _PQ
        power = np.power(linear / PQ_PEAK_NITS, m1)
        signal = np.power((c1 + c2 * power) / (1 + c3 * power), m2)
    else:
        a, b, c = _HLG
        shown = linear / HLG_PEAK_NITS
        luma = max(float(_BT2020_LUMA @ shown), 1e-9)
        scene = shown * luma ** (1 / HLG_GAMMA - 1)
        curved = a * np.log(np.maximum(12 * scene - b, 1e-9)) + c
        signal = np.where(scene <= 1 / 12, np.sqrt(3 * scene), curved)
    red, green, blue = np.clip(signal, 0, 1).tolist()
    return red, green, blue


_PQ = (1305 / 8192, 2523 / 32, 107 / 128, 2413 / 128, 2392 / 128)
_HLG = (0.17883277, 0.28466892, 0.55991073)


@lru_cache(maxsize=8)
def to_bt709(primaries: int) -> NDArray[np.float64]:
    """The matrix (3, 3) from linear RGB of these primaries to that of BT.709.

    Those without a valid tag are taken for BT.2020, as HDR usually is.
    """
    if primaries in _NARROW:
        return np.eye(3)
    name = "P3" if primaries in _P3 else "BT.2020"
    return np.asarray(np.linalg.inv(_to_xyz("BT.709")) @ _to_xyz(name))


def _to_xyz(name: str) -> NDArray[np.float64]:
    columns = [(x / y, 1.0, (1 - x - y) / y) for x, y in (*_PRIMARIES_XY[name], _D65)]
    matrix, white = np.array(columns[:3]).T, np.array(columns[3])
    return np.asarray(matrix * np.linalg.solve(matrix, white))
