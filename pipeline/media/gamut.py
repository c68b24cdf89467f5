"""Colours of other primaries (Display P3, BT.2020) -> those of BT.709, which models know."""

from __future__ import annotations

import contextlib
from functools import lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from pipeline.core.cache import NotKept, cache_dir, is_whole, publish, seal
from pipeline.media.color import is_gray, is_rgb, luma_weights

_WIDE = frozenset((8, 9, 10, 11, 12, 22))
"""The primaries that OpenCV's reader maps: all but those of BT.709, BT.601 and their like."""
_BT709, _FULL_RANGE, _HDR = 1, 2, (16, 18)
_BT601, _MATRICES = 6, (1, 4, 7, 9)
_ROWS, _PARTS = 4096, 16

Table = NDArray[np.uint32]
"""For each colour, blue + 256 green + 65536 red, the one of BT.709 in the same form."""


def bt709_table(image: av.VideoFrame) -> Table | None:
    """The table for the colours of a frame; None where they need none.

    Made by swscale, once for each kind of colours, in a few seconds, and kept in the cache folder:
    to convert every frame by swscale itself takes 60 ns a pixel.
    """
    primaries = int(image.color_primaries)
    if primaries not in _WIDE or is_gray(image.format):
        return None
    matrix = _BT601 if is_rgb(image.format) else int(image.colorspace)
    return _table(primaries, int(image.color_trc), matrix if matrix in _MATRICES else _BT601)


def to_bt709(bgr: NDArray[np.uint8], table: Table) -> NDArray[np.uint8]:
    """Pixels (height, width, 3) as the table has them."""
    padded = cv2.cvtColor(bgr, cv2.COLOR_BGR2BGRA)
    index = (padded.view(np.int32)[..., 0] & 0xFFFFFF).astype(np.intp)
    mapped = np.take(table, index, mode="clip").view(np.uint8).reshape(padded.shape)
    return np.asarray(cv2.cvtColor(mapped, cv2.COLOR_BGRA2BGR), np.uint8)


@lru_cache(maxsize=2)
def _table(primaries: int, trc: int, matrix: int) -> Table | None:
    version = ".".join(map(str, av.library_versions["libswscale"]))
    path = cache_dir() / "colors" / f"{primaries}-{trc}-{matrix}-{version}.npy"
    if is_whole(path):
        kept: Table = np.load(path)
        return kept
    try:
        table = _made(primaries, trc, matrix)
    except av.FFmpegError:  # A transfer that swscale does not know: OpenCV shows nothing at all.
        return None

    def write(target: Path) -> None:
        np.save(target, table)
        seal(target)

    with contextlib.suppress(NotKept):  # The model could not be kept either: there is a note.
        publish(path, write)
    return table


def _made(primaries: int, trc: int, matrix: int) -> Table:
    """All 2^24 colours through swscale, as planes of this matrix: it makes a difference there."""
    kr, kb = luma_weights(matrix)
    luma = np.array((kr, 1 - kr - kb, kb), np.float32)
    blue, red = np.array((0, 0, 1), np.float32), np.array((1, 0, 0), np.float32)
    weights = (luma, (blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr)))
    image = av.VideoFrame(256, _ROWS, "yuv444p16le")
    image.color_range, image.colorspace = _FULL_RANGE, matrix
    image.color_primaries, image.color_trc = primaries, trc
    reformatter, table = VideoReformatter(), np.empty((_PARTS, _ROWS, 256), np.uint32)
    for part in range(_PARTS):
        colors = np.arange(part << 20, (part + 1) << 20, dtype=np.int32).reshape(_ROWS, 256)
        rgb = [(colors >> shift & 255).astype(np.float32) * 257 for shift in (16, 8, 0)]
        for plane, weight, middle in zip(image.planes, weights, (0, 32768, 32768), strict=True):
            values = sum(w * channel for w, channel in zip(weight, rgb, strict=True)) + middle
            rows = np.frombuffer(plane, np.uint16).reshape(_ROWS, -1)  # type: ignore[call-overload]
            rows[:, :256] = np.clip(np.round(values), 0, 65535)
        bgr = reformatter.reformat(
            image,
            format="bgr24",
            interpolation=Interpolation.BICUBIC,
            dst_color_primaries=_BT709,
            dst_color_trc=_BT709 if trc in _HDR else None,
            threads=1,
        ).to_ndarray()
        table[part] = bgr.astype(np.uint32) @ np.array((1, 1 << 8, 1 << 16), np.uint32)
    return table.reshape(-1)
