"""The file that says where events happen: named lines and zones, as YAML or JSON.

units: shares            # of width and height, the default; or pixels
anchor: bottom_center    # the point of a box that counts, the default
bin_seconds: 60          # for counts over time; without it, it follows from the clip
lines:
  - {name: gate, points: [[0.1, 0.6], [0.9, 0.6]]}
zones:
  - {name: yard, points: [[0, 0.5], [1, 0.5], [1, 1], [0, 1]], anchor: center}

Imports nothing heavy: the parent process reads the file before a run.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.yaml_file import read_yaml

Point = tuple[float, float]

ANCHORS: dict[str, Point] = {
    "bottom_center": (0.5, 1.0),
    "center": (0.5, 0.5),
    "top_center": (0.5, 0.0),
}
"""The point of a box that counts, as shares of its width and height."""

_UNITS = ("shares", "pixels")
_DEFAULT_ANCHOR = "bottom_center"
_LEAST_BIN_SECONDS = 0.1
_LARGEST = 1e9
_MOST_SHARE = 2.0
"""A larger number is no share of a frame, but pixels."""


@dataclass(frozen=True, slots=True)
class Shape:
    """A line of two points or a zone of at least three, and the anchor of the boxes it counts."""

    name: str
    points: tuple[Point, ...]
    anchor: str


@dataclass(frozen=True, slots=True)
class Shapes:
    """What a file defines. bin_seconds: None if it follows from the length of the clip."""

    lines: tuple[Shape, ...]
    zones: tuple[Shape, ...]
    in_pixels: bool
    bin_seconds: float | None

    def scaled(self, size_wh: tuple[int, int]) -> Shapes:
        """The shapes in pixels of a frame of this size."""
        if self.in_pixels:
            return self
        width, height = size_wh

        def scale(shapes: Sequence[Shape]) -> tuple[Shape, ...]:
            return tuple(
                Shape(s.name, tuple((x * width, y * height) for x, y in s.points), s.anchor)
                for s in shapes
            )

        return Shapes(scale(self.lines), scale(self.zones), True, self.bin_seconds)


def read_shapes(path: Path) -> Shapes:
    """Raises UsageError, in one line, for a file that cannot be read or is not as above."""
    try:
        return _shapes(_mapping(read_yaml(path), "the file", _SHAPES_KEYS))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


_SHAPES_KEYS = ("units", "anchor", "bin_seconds", "lines", "zones")
_SHAPE_KEYS = ("name", "points", "anchor")


def _shapes(values: Mapping[str, Any]) -> Shapes:
    units = _one_of(values.get("units", "shares"), _UNITS, "units")
    anchor = values.get("anchor", _DEFAULT_ANCHOR)
    bin_seconds = values.get("bin_seconds")
    if bin_seconds is not None and not _number(bin_seconds) >= _LEAST_BIN_SECONDS:
        raise ValueError(f"bin_seconds must be {_LEAST_BIN_SECONDS:g} or more, not {bin_seconds!r}")
    found = Shapes(
        tuple(_shape(entry, "line", anchor) for entry in _list(values, "lines")),
        tuple(_shape(entry, "zone", anchor) for entry in _list(values, "zones")),
        units == "pixels",
        bin_seconds,
    )
    shapes = [*found.lines, *found.zones]
    if not shapes:
        raise ValueError("defines neither lines nor zones")
    names = [shape.name for shape in shapes]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ValueError(f"the name {twice!r} is given twice")
    largest = max(abs(edge) for shape in shapes for point in shape.points for edge in point)
    if not found.in_pixels and largest > _MOST_SHARE:
        raise ValueError(f"{largest:g} is not a share of the frame: write `units: pixels`")
    return found


def _shape(entry: Any, kind: str, anchor: Any) -> Shape:
    values = _mapping(entry, f"a {kind}", _SHAPE_KEYS)
    name = values.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"a {kind} has no name")
    points = values.get("points")
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise ValueError(f"{kind} {name!r}: points must be a list of [x, y]")
    found = _without_repeats([(float(x), float(y)) for x, y in points])
    if kind == "line" and len(found) != 2:
        raise ValueError(f"line {name!r}: needs two different points")
    if kind == "zone" and (len(found) < 3 or not _enclosed_area(found)):
        raise ValueError(f"zone {name!r}: needs three or more points that enclose an area")
    return Shape(name, found, _one_of(values.get("anchor", anchor), tuple(ANCHORS), "anchor"))


def _enclosed_area(polygon: Sequence[Point]) -> float:
    """By the shoelace formula."""
    edges = zip(polygon, [*polygon[1:], polygon[0]], strict=True)
    return abs(sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in edges)) / 2


def _without_repeats(points: Sequence[Point]) -> tuple[Point, ...]:
    """Without points that equal the one before, as where an outline is closed explicitly."""
    before = [points[-1], *points[:-1]] if points else []
    return tuple(point for point, last in zip(points, before, strict=True) if point != last)


def _mapping(value: Any, what: str, keys: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{what} is not a mapping with {', '.join(keys)}")
    for key in value:
        if key not in keys:
            near = difflib.get_close_matches(str(key), keys, 1)
            meant = f"; did you mean {near[0]}?" if near else f": {what} has {', '.join(keys)}"
            raise ValueError(f"{key!r} is unknown{meant}")
    return value


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    found = values.get(key) or []
    if not isinstance(found, list):
        raise ValueError(f"{key} is not a list of entries with {', '.join(_SHAPE_KEYS)}")
    return found


def _one_of(value: Any, choices: tuple[str, ...], key: str) -> str:
    if value not in choices:
        raise ValueError(f"{key} {value!r} is not one of {', '.join(choices)}")
    return str(value)


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(_is_number, point))


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST


def _number(value: Any) -> float:
    return float(value) if _is_number(value) else math.nan
