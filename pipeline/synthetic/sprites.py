"""The things of the synthetic world, drawn as vector shapes: no picture files are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.synthetic.pen import Color, Pen, Point

CLASS_NAMES = (
    "ball",
    "balloon",
    "bird",
    "car",
    "flower",
    "house",
    "mushroom",
    "rocket",
    "star",
    "tree",
)
"""What there is in the synthetic world; a class id is a place in this list."""

SOLID_ALPHA = 128
"""From this alpha on (of 255) a pixel belongs to a thing's silhouette."""

NUM_POSES = 4
"""Poses of things that flap: 0 and NUM_POSES are the same."""

_SUPERSAMPLING = 3


@dataclass(frozen=True, slots=True)
class Sprite:
    """A small picture that can be laid over a frame.

    bgr: uint8 (height, width, 3), premultiplied by alpha.
    transparency: uint8 (height, width, 3), 255 minus alpha, the same in all three channels.
    solid: bool (height, width), the silhouette: alpha of SOLID_ALPHA or more.
    solid_xyxy: the silhouette's bounding box in the sprite.
    num_solid: pixels in the silhouette.
    """

    bgr: NDArray[np.uint8]
    transparency: NDArray[np.uint8]
    solid: NDArray[np.bool_]
    solid_xyxy: tuple[int, int, int, int]
    num_solid: int

    @classmethod
    def from_bgra(cls, bgra: NDArray[np.uint8]) -> Sprite:
        """Of a premultiplied picture, uint8 (height, width, 4), not empty."""
        x0, y0, x1, y1 = bounding_box(bgra[:, :, 3] > 0)
        bgra = bgra[y0:y1, x0:x1]
        alpha = bgra[:, :, 3]
        solid = alpha >= SOLID_ALPHA
        transparency = cv2.merge([255 - alpha] * 3).astype(np.uint8, copy=False)
        return cls(
            bgr=np.ascontiguousarray(bgra[:, :, :3]),
            transparency=transparency,
            solid=solid,
            solid_xyxy=bounding_box(solid),
            num_solid=int(np.count_nonzero(solid)),
        )


def bounding_box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """The tight (left, top, right, bottom) around what is set, right and bottom exclusive.

    All zero where nothing is set.
    """
    columns = np.flatnonzero(mask.any(axis=0))
    if not columns.size:
        return 0, 0, 0, 0
    rows = np.flatnonzero(mask.any(axis=1))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def draw_thing(
    class_id: int, size_px: int, random: np.random.Generator, pose: int
) -> NDArray[np.uint8]:
    """One individual of a class, upright and looking to the right.

    Returns a premultiplied BGRA picture, uint8 (size_px, size_px, 4). The same state of `random`
    gives the same individual, in each of its poses.
    """
    pen = Pen(size_px * _SUPERSAMPLING)
    _DRAWINGS[class_id](pen, random, pose)
    small = cv2.resize(pen.canvas, (size_px, size_px), interpolation=cv2.INTER_AREA)
    # Light from the upper left makes flat shapes look round.
    ramp = np.linspace(0.0, 1.0, size_px, dtype=np.float32)
    light = 1.12 - 0.36 * (0.35 * ramp[None, :] + 0.65 * ramp[:, None])
    bgr = np.minimum(small[:, :, :3] * light[:, :, None], small[:, :, 3:])
    small[:, :, :3] = bgr.astype(np.uint8)
    return small.astype(np.uint8, copy=False)


def _color(
    random: np.random.Generator,
    hues: Sequence[int],
    saturation: tuple[int, int] = (170, 240),
    value: tuple[int, int] = (170, 245),
) -> Color:
    """One of the hues (0 to 179, as OpenCV counts them), varied a little."""
    hue = (int(random.choice(hues)) + int(random.integers(-4, 5))) % 180
    hsv = np.array([[[hue, random.integers(*saturation), random.integers(*value)]]], np.uint8)
    b, g, r = cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR)[0, 0]
    return int(b), int(g), int(r)


def _mixed(color: Color, other: Color, share: float) -> Color:
    b, g, r = (round(a + (c - a) * share) for a, c in zip(color, other, strict=True))
    return b, g, r


_BLACK, _WHITE, _DARK = (0, 0, 0), (250, 250, 250), (45, 40, 40)
_RED, _ORANGE, _YELLOW, _GREEN, _CYAN, _BLUE, _PURPLE, _PINK = 0, 12, 26, 60, 95, 112, 140, 165


def _ball(pen: Pen, random: np.random.Generator, pose: int) -> None:
    color = _color(random, [_RED, _BLUE, _GREEN, _PURPLE, _ORANGE])
    centre, radius = (0.5, 0.5), 0.48
    pen.disc(centre, radius, _WHITE)
    for start in (0, 120, 240):
        pen.ellipse(centre, (radius, radius), color, arc=(start, start + 60))
    pen.disc(centre, 0.1, _mixed(color, _BLACK, 0.35))


def _balloon(pen: Pen, random: np.random.Generator, pose: int) -> None:
    color = _color(random, [_RED, _ORANGE, _YELLOW, _CYAN, _PURPLE, _PINK])
    stripe = _color(random, [_YELLOW, _BLUE, _PINK, _GREEN], (60, 200), (220, 250))
    rope, basket = (50, 70, 90), (35, 75, 130)
    pen.polygon([(0.15, 0.5), (0.85, 0.5), (0.6, 0.82), (0.4, 0.82)], color)
    pen.ellipse((0.5, 0.39), (0.37, 0.37), color)
    pen.polygon([(0.28, 0.5), (0.72, 0.5), (0.55, 0.82), (0.45, 0.82)], stripe)
    pen.ellipse((0.5, 0.39), (0.23, 0.37), stripe)
    pen.polygon([(0.41, 0.5), (0.59, 0.5), (0.52, 0.82), (0.48, 0.82)], color)
    pen.ellipse((0.5, 0.39), (0.1, 0.37), color)
    pen.line((0.42, 0.81), (0.43, 0.88), 0.016, rope)
    pen.line((0.58, 0.81), (0.57, 0.88), 0.016, rope)
    pen.box(0.4, 0.87, 0.6, 0.99, basket)
    pen.box(0.4, 0.87, 0.6, 0.9, _mixed(basket, _BLACK, 0.4))


def _bird(pen: Pen, random: np.random.Generator, pose: int) -> None:
    color = _color(random, [_BLUE, _RED, _CYAN, _PURPLE, _ORANGE], (60, 230), (90, 235))
    belly, wing = _mixed(color, _WHITE, 0.6), _mixed(color, _BLACK, 0.35)
    pen.polygon([(0.28, 0.52), (0.03, 0.42), (0.02, 0.6), (0.28, 0.62)], wing)
    pen.ellipse((0.48, 0.56), (0.28, 0.15), color)
    pen.ellipse((0.5, 0.62), (0.2, 0.08), belly)
    pen.disc((0.75, 0.48), 0.12, color)
    pen.polygon([(0.85, 0.43), (0.99, 0.5), (0.85, 0.54)], (30, 160, 250))
    pen.disc((0.79, 0.45), 0.028, _BLACK)
    tip = ((0.3, 0.08), (0.2, 0.36), (0.28, 0.9), (0.2, 0.36))[pose % NUM_POSES]
    pen.polygon([(0.36, 0.54), tip, (0.5, tip[1] * 0.75 + 0.14), (0.62, 0.54)], wing)


def _car(pen: Pen, random: np.random.Generator, pose: int) -> None:
    color = _color(random, [_RED, _ORANGE, _YELLOW, _GREEN, _CYAN, _BLUE, _PINK], (40, 235))
    dark, glass = _mixed(color, _BLACK, 0.3), (225, 205, 170)
    pen.shadow((0.5, 0.74), (0.49, 0.05))
    pen.polygon([(0.2, 0.48), (0.3, 0.28), (0.62, 0.28), (0.77, 0.48)], dark)
    pen.polygon([(0.25, 0.48), (0.33, 0.32), (0.45, 0.32), (0.45, 0.48)], glass)
    pen.polygon([(0.48, 0.48), (0.48, 0.32), (0.6, 0.32), (0.71, 0.48)], glass)
    pen.polygon(
        [(0.02, 0.5), (0.06, 0.46), (0.8, 0.46), (0.96, 0.52), (0.99, 0.66), (0.02, 0.66)], color
    )
    pen.box(0.02, 0.6, 0.99, 0.66, dark)
    pen.box(0.93, 0.53, 0.975, 0.58, (150, 240, 255))
    pen.box(0.02, 0.52, 0.05, 0.58, (40, 40, 220))
    for x in (0.23, 0.77):
        pen.disc((x, 0.65), 0.1, _DARK)
        pen.disc((x, 0.65), 0.05, (190, 190, 190))


def _flower(pen: Pen, random: np.random.Generator, pose: int) -> None:
    color = _color(random, [_RED, _PINK, _PURPLE, _BLUE], (60, 230), (190, 250))
    green = _color(random, [_GREEN - 10], (150, 220), (90, 160))
    pen.shadow((0.5, 0.97), (0.2, 0.03))
    pen.line((0.5, 0.4), (0.5, 0.95), 0.07, green)
    pen.ellipse((0.36, 0.78), (0.16, 0.07), green, turn=25)
    pen.ellipse((0.64, 0.72), (0.16, 0.07), green, turn=-25)
    for petal in range(6):
        angle = np.radians(60 * petal + 30)
        centre = (0.5 + 0.19 * float(np.cos(angle)), 0.31 + 0.19 * float(np.sin(angle)))
        shade = _mixed(color, _WHITE, 0.25 * (petal % 2))
        pen.ellipse(centre, (0.14, 0.1), shade, turn=60 * petal + 30)
    pen.disc((0.5, 0.31), 0.1, (40, 200, 250))


def _house(pen: Pen, random: np.random.Generator, pose: int) -> None:
    wall = _color(random, [_YELLOW - 6, _ORANGE, _CYAN, _PINK], (15, 90), (195, 245))
    roof = _color(random, [_RED, _ORANGE - 6, _BLUE], (120, 210), (90, 190))
    door, pane = (40, 60, 95), (200, 170, 110)
    pen.shadow((0.5, 0.95), (0.49, 0.04))
    pen.box(0.68, 0.08, 0.8, 0.4, _mixed(roof, _BLACK, 0.4))
    pen.box(0.1, 0.42, 0.9, 0.95, wall)
    pen.polygon([(0.01, 0.45), (0.5, 0.04), (0.99, 0.45)], roof)
    pen.polygon([(0.01, 0.45), (0.99, 0.45), (0.94, 0.4), (0.06, 0.4)], _mixed(roof, _BLACK, 0.3))
    pen.box(0.42, 0.62, 0.58, 0.95, door)
    for x in (0.17, 0.65):
        pen.box(x, 0.55, x + 0.18, 0.75, _WHITE)
        pen.box(x + 0.02, 0.57, x + 0.08, 0.73, pane)
        pen.box(x + 0.1, 0.57, x + 0.16, 0.73, pane)


def _mushroom(pen: Pen, random: np.random.Generator, pose: int) -> None:
    cap = _color(random, [_RED, _RED, _ORANGE, _PURPLE], (180, 240), (150, 225))
    stem = (205, 225, 240)
    pen.shadow((0.5, 0.93), (0.3, 0.04))
    pen.polygon([(0.38, 0.5), (0.62, 0.5), (0.68, 0.9), (0.32, 0.9)], stem)
    pen.ellipse((0.5, 0.9), (0.18, 0.045), stem)
    pen.ellipse((0.5, 0.55), (0.3, 0.06), _mixed(stem, _BLACK, 0.3))
    pen.ellipse((0.5, 0.53), (0.48, 0.46), cap, arc=(180, 360))
    for x, y, radius in (
        (0.5, 0.2, 0.07),
        (0.27, 0.33, 0.06),
        (0.72, 0.32, 0.07),
        (0.5, 0.43, 0.05),
    ):
        pen.disc((x, y), radius, _WHITE)


def _rocket(pen: Pen, random: np.random.Generator, pose: int) -> None:
    body = _color(random, [_CYAN, _BLUE, _YELLOW], (0, 50), (215, 250))
    trim = _color(random, [_RED, _BLUE, _GREEN, _ORANGE], (180, 240), (150, 230))
    pen.polygon([(0.2, 0.42), (0.01, 0.5), (0.2, 0.58)], (20, 130, 250))
    pen.polygon([(0.2, 0.45), (0.09, 0.5), (0.2, 0.55)], (120, 235, 255))
    pen.polygon([(0.2, 0.5), (0.16, 0.22), (0.28, 0.22), (0.48, 0.42), (0.48, 0.5)], trim)
    pen.polygon([(0.2, 0.5), (0.16, 0.78), (0.28, 0.78), (0.48, 0.58), (0.48, 0.5)], trim)
    pen.box(0.2, 0.37, 0.7, 0.63, body)
    pen.ellipse((0.7, 0.5), (0.29, 0.13), trim, arc=(-90, 90))
    pen.box(0.2, 0.37, 0.25, 0.63, _mixed(trim, _BLACK, 0.4))
    pen.disc((0.55, 0.5), 0.08, _mixed(trim, _BLACK, 0.5))
    pen.disc((0.55, 0.5), 0.055, (240, 215, 150))


def _star(pen: Pen, random: np.random.Generator, pose: int) -> None:
    color = _color(random, [_YELLOW, _YELLOW, _ORANGE + 6, _PINK], (130, 230), (225, 250))
    for reach, shade in ((1.0, _mixed(color, _BLACK, 0.3)), (0.82, color)):
        pen.polygon(_star_corners(reach * 0.5), shade)
    pen.polygon(_star_corners(0.22), _mixed(color, _WHITE, 0.55))


def _star_corners(radius: float) -> list[Point]:
    corners = []
    for corner in range(10):
        angle = np.radians(36 * corner - 90)
        reach = radius if corner % 2 == 0 else radius * 0.5
        corners.append((0.5 + reach * float(np.cos(angle)), 0.5 + reach * float(np.sin(angle))))
    return corners


def _tree(pen: Pen, random: np.random.Generator, pose: int) -> None:
    green = _color(random, [_GREEN - 20, _GREEN - 8, _GREEN + 6], (120, 220), (80, 165))
    trunk = _color(random, [_ORANGE], (90, 150), (60, 110))
    round_crown = bool(random.integers(0, 2))
    pen.shadow((0.5, 0.97), (0.3, 0.03))
    pen.box(0.44, 0.6, 0.56, 0.97, trunk)
    if round_crown:
        for x, y, radius in (
            (0.3, 0.5, 0.18),
            (0.7, 0.5, 0.18),
            (0.5, 0.3, 0.27),
            (0.5, 0.52, 0.2),
        ):
            pen.disc((x, y), radius, green)
        for x, y in ((0.42, 0.22), (0.62, 0.36), (0.3, 0.46), (0.52, 0.52), (0.72, 0.5)):
            pen.disc((x, y), 0.07, _mixed(green, _WHITE, 0.15))
    else:
        for top, half, shade in ((0.4, 0.36, 0.25), (0.2, 0.29, 0.12), (0.02, 0.21, 0.0)):
            corners = [(0.5, top), (0.5 + half, top + 0.42), (0.5 - half, top + 0.42)]
            pen.polygon(corners, _mixed(green, _BLACK, shade))


_DRAWINGS: tuple[Callable[[Pen, np.random.Generator, int], None], ...] = (
    _ball,
    _balloon,
    _bird,
    _car,
    _flower,
    _house,
    _mushroom,
    _rocket,
    _star,
    _tree,
)
