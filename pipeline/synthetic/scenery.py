"""What lies behind the things of the synthetic world: sky, hills and ground, drifting past."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]

_NOISE_MARGIN_PX = 64
_NOISE_MEAN = 64


@dataclass(frozen=True, slots=True)
class _Palette:
    """Colours (BGR) of a landscape, and how bright it is."""

    zenith: Color
    haze: Color
    cloud: Color
    far: Color
    near: Color
    ground: Color
    light: float


_PALETTES = (
    _Palette((215, 150, 80), (240, 220, 190), (255, 250, 245), (165, 150, 120), (105, 130, 90),
             (70, 135, 95), 1.0),
    _Palette((130, 85, 90), (120, 165, 240), (170, 190, 245), (120, 100, 120), (85, 80, 90),
             (65, 95, 110), 0.9),
    _Palette((230, 180, 110), (235, 225, 205), (250, 250, 250), (130, 165, 195), (95, 150, 190),
             (120, 180, 215), 1.0),
    _Palette((190, 175, 160), (225, 220, 215), (240, 240, 240), (190, 180, 170), (205, 195, 185),
             (230, 225, 220), 0.95),
    _Palette((85, 50, 30), (120, 80, 60), (110, 85, 75), (75, 55, 45), (60, 50, 40),
             (50, 65, 45), 0.85),
    _Palette((170, 160, 150), (195, 190, 185), (220, 218, 215), (130, 130, 120), (90, 110, 95),
             (75, 110, 105), 0.9),
)  # fmt: skip


class Scenery:
    """A landscape of one seed and size; every frame of it can be drawn by itself.

    horizon_px: the row where the ground begins.
    """

    def __init__(self, size_wh: tuple[int, int], random: np.random.Generator) -> None:
        width, height = self._size_wh = size_wh
        palette = _PALETTES[int(random.integers(len(_PALETTES)))]
        self.horizon_px = round(height * float(random.uniform(0.38, 0.55)))
        self._speed_px = width / 640 * float(random.choice([-1.0, 1.0])) * random.uniform(0.6, 2.0)
        self._light = palette.light
        self._flicker = float(random.uniform(0.03, 0.15))
        self._flicker_frames = float(random.uniform(40, 160))

        hill_px = max(2, height // 6)
        self._hills_top = max(0, self.horizon_px - hill_px)
        self._sky = _sky(random, 2 * width, self.horizon_px, palette)
        hills = [
            _ridge(random, 2 * width, self.horizon_px - self._hills_top, share)
            for share in (0.9, 0.55)
        ]
        self._hills = [
            (_textured(random, ridge.shape[::-1], color, 10), ridge)
            for ridge, color in zip(hills, (palette.far, palette.near), strict=True)
        ]
        self._ground = _ground(random, (2 * width, height - self.horizon_px), palette)
        shape_hw = (height + _NOISE_MARGIN_PX, width + _NOISE_MARGIN_PX)
        noise = random.standard_normal((*shape_hw, 1), np.float32) * random.uniform(1.5, 5.5)
        noise = noise + 1.5 * random.standard_normal((*shape_hw, 3), np.float32)
        self._noise = np.clip(noise + _NOISE_MEAN, 0, 255).astype(np.uint8)

    def draw(self, index: int) -> NDArray[np.uint8]:
        """The empty landscape of frame `index`, uint8 BGR (height, width, 3), to be drawn on."""
        width, height = self._size_wh
        canvas = np.empty((height, width, 3), np.uint8)
        path = self._speed_px * index
        _paste(canvas[: self.horizon_px], self._sky, path * 0.15)
        band = canvas[self._hills_top : self.horizon_px]
        for (color, ridge), depth in zip(self._hills, (0.3, 0.5), strict=True):
            _paste(band, color, path * depth, ridge)
        _paste(canvas[self.horizon_px :], self._ground, path)
        return canvas

    def expose(self, canvas: NDArray[np.uint8], index: int) -> None:
        """Give the finished frame its brightness and its noise, in place."""
        width, height = self._size_wh
        phase = 2 * np.pi * index / self._flicker_frames
        gain = self._light * (1.0 + self._flicker * float(np.sin(phase)))
        # Steps that share no factor with the margin visit all of it.
        x, y = (index * 37) % (_NOISE_MARGIN_PX + 1), (index * 23) % (_NOISE_MARGIN_PX + 1)
        noise = self._noise[y : y + height, x : x + width]
        cv2.addWeighted(canvas, gain, noise, 1.0, -float(_NOISE_MEAN), dst=canvas)

    @property
    def ground_speed_px(self) -> float:
        """How far the ground moves to the left per frame, at the horizon; negative: right."""
        return self._speed_px


def _paste(
    target: NDArray[np.uint8],
    layer: NDArray[np.uint8],
    path_px: float,
    mask: NDArray[np.uint8] | None = None,
) -> None:
    """Copy the part of an endlessly repeated layer that is in view."""
    width, period = target.shape[1], layer.shape[1]
    start = round(path_px) % period
    done = 0
    while done < width:
        length = min(width - done, period - start)
        part = layer[:, start : start + length]
        if mask is None:
            target[:, done : done + length] = part
        elif length and part.shape[0]:
            cv2.copyTo(part, mask[:, start : start + length], target[:, done : done + length])
        done, start = done + length, 0


def _smooth(
    random: np.random.Generator, size_wh: tuple[int, int], cell_wh: tuple[int, int]
) -> NDArray[np.float32]:
    """Soft blobs in -1..1 that repeat without a seam from left to right: (height, width)."""
    width, height = size_wh
    columns, rows = max(2, width // max(1, cell_wh[0])), max(2, height // max(1, cell_wh[1]))
    coarse = random.uniform(-1, 1, (rows, columns)).astype(np.float32)
    coarse = np.concatenate((coarse, coarse[:, :2]), axis=1)
    pitch = width / columns
    wide = cv2.resize(
        coarse, (round(pitch * (columns + 2)), height), interpolation=cv2.INTER_LINEAR
    )
    first = round(pitch / 2)
    return wide[:, first : first + width].astype(np.float32, copy=False)


def _textured(
    random: np.random.Generator, size_wh: tuple[int, int], color: Color, strength: float
) -> NDArray[np.uint8]:
    texture = np.zeros((size_wh[1], size_wh[0]), np.float32)
    for level, cell in enumerate((48, 16, 5), start=1):
        texture += _smooth(random, size_wh, (cell * 2, cell)) / level
    shaded = np.asarray(color, np.float32) + strength * texture[:, :, None]
    texture_bgr: NDArray[np.uint8] = np.clip(shaded, 0, 255).astype(np.uint8)
    return texture_bgr


def _blend(low: Color, high: Color, share: NDArray[np.float32]) -> NDArray[np.float32]:
    """Colours between two: share (...) in 0..1 -> (..., 3)."""
    a, b = np.asarray(low, np.float32), np.asarray(high, np.float32)
    return a + (b - a) * share[..., None]


def _sky(
    random: np.random.Generator, width: int, height: int, palette: _Palette
) -> NDArray[np.uint8]:
    fall = np.linspace(0, 1, max(1, height), dtype=np.float32)[:height]
    sky = np.repeat(_blend(palette.zenith, palette.haze, fall)[:, None], width, axis=1)
    cell = max(8, height // 2)
    puffs = (
        _smooth(random, (width, height), (cell * 2, cell))
        + 0.5 * _smooth(random, (width, height), (cell // 2, cell // 4))
        + 0.2 * _smooth(random, (width, height), (max(2, cell // 6), max(2, cell // 10)))
    )
    cover = np.clip((puffs - 0.15) * 1.6, 0, 0.85)[..., None]
    clouded: NDArray[np.uint8] = (
        sky + (np.asarray(palette.cloud, np.float32) - sky) * cover
    ).astype(np.uint8)
    return clouded


def _ridge(random: np.random.Generator, width: int, height: int, share: float) -> NDArray[np.uint8]:
    """The mask of a chain of hills that fills about this share of its height: 0 or 255."""
    outline = np.zeros(width, np.float32)
    place = np.linspace(0, 2 * np.pi, width, endpoint=False)
    for waves in (2, 5, 11, 23):
        outline += np.sin(place * waves + random.uniform(0, 2 * np.pi)) / waves
    top = height * (1 - share + 0.35 * share * (1 - outline))
    return (255 * (np.arange(height)[:, None] >= top)).astype(np.uint8)


def _ground(
    random: np.random.Generator, size_wh: tuple[int, int], palette: _Palette
) -> NDArray[np.uint8]:
    width, height = size_wh
    fall = np.linspace(0, 1, max(1, height), dtype=np.float32)[:height]
    ground = np.repeat(_blend(palette.near, palette.ground, fall**0.6)[:, None], width, axis=1)
    tall = 4 * height
    plan = (
        _smooth(random, (width, tall), (90, 18))
        + 0.7 * _smooth(random, (width, tall), (24, 6))
        + 0.4 * _smooth(random, (width, tall), (7, 3))
    )
    # Seen at a slant: flat and small at the horizon, growing towards the viewer.
    rows = (tall - 1) * np.log1p(15 * fall) / np.log1p(15)
    patches = plan[rows.astype(np.intp)]
    ground += 14 * patches[..., None]
    ground += 4 * random.standard_normal((height, width, 1), np.float32)
    return np.clip(ground, 0, 255).astype(np.uint8)
