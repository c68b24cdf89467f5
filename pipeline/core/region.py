"""The region of the frame in which boxes are kept: a rectangle or a polygon, as --roi gives it."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.errors import InputError, UsageError
from pipeline.core.yaml_file import read_yaml

Point = tuple[float, float]

_NUMBERS = re.compile(r"\s*[-+.\deE]+(\s*,\s*[-+.\deE]+)+\s*")
_KEYS = ("units", "polygon", "zones")
_STEP_PX = 4
"""A window begins and ends at multiples of it: every subsampling of colours has samples there."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of the displayed frame, in whole pixels."""

    left: int
    top: int
    size_wh: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Region:
    """A polygon in pixels of the displayed frame, float64 (N, 2), and the size of that frame."""

    points: NDArray[np.float64]
    frame_wh: tuple[int, int]

    def kept(self, boxes: Detections) -> Detections:
        """The boxes whose centres lie in the region, or on its edge."""
        inside = self._contains((boxes.xyxy[:, :2].astype(np.float64) + boxes.xyxy[:, 2:]) / 2)
        return Detections(boxes.xyxy[inside], boxes.confidence[inside], boxes.class_id[inside])

    @property
    def window(self) -> Window:
        """The smallest one around it."""
        low, high = self.points.min(axis=0), self.points.max(axis=0)
        begin = [max(0, math.floor(edge / _STEP_PX) * _STEP_PX) for edge in low]
        end = [
            min(side, math.ceil(edge / _STEP_PX) * _STEP_PX)
            for edge, side in zip(high, self.frame_wh, strict=True)
        ]
        return Window(begin[0], begin[1], (end[0] - begin[0], end[1] - begin[1]))

    def _contains(self, centres: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Whether points (N, 2) lie inside: a ray from each crosses the outline an odd number of
        times."""
        begin, end = self.points, np.roll(self.points, -1, axis=0)
        x, y = centres[:, :1], centres[:, 1:]
        along, apart = end - begin, (x - begin[:, 0], y - begin[:, 1])
        cross = along[:, 0] * apart[1] - along[:, 1] * apart[0]
        crosses = (begin[:, 1] <= y) != (end[:, 1] <= y)
        to_the_right = (cross > 0) == (along[:, 1] > 0)
        within = apart[0] * (x - end[:, 0]) + apart[1] * (y - end[:, 1]) <= 0
        on_edge = ((cross == 0) & within).any(axis=1)
        return np.asarray(on_edge | ((crosses & to_the_right).sum(axis=1) % 2 == 1))


def roi_text(value: object) -> str:
    """A rectangle x,y,w,h or an outline x,y,x,y,x,y as text, also of numbers or a file.

    Raises UsageError for what is neither.
    """
    if isinstance(value, (list, tuple)):
        value = ",".join(map(str, value))
    if isinstance(value, str) and _NUMBERS.fullmatch(value):
        numbers = [float(number) for number in _floats(value)]
    else:
        numbers = [edge for point in _read_polygon(Path(str(value))) for edge in point]
    _polygon(numbers)
    return ",".join(f"{number:.10g}" for number in numbers)


def region_of(text: str, frame_wh: tuple[int, int]) -> Region:
    """The region of a frame of this size. Raises InputError if it lies outside the frame.

    text: as `roi_text` gives it. Numbers that are all 0 to 1 are shares of the frame.
    """
    numbers = [float(number) for number in text.split(",")]
    points = np.array(_polygon(numbers), np.float64)
    if max(numbers) <= 1:
        points = points * frame_wh
    low, high = points.min(axis=0), points.max(axis=0)
    if (high <= 0).any() or (low >= frame_wh).any():
        width, height = frame_wh
        raise InputError(f"--roi {text} lies outside the frame, which is {width}x{height}")
    return Region(points, frame_wh)


def _floats(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise _neither(text) from None


def _polygon(numbers: Sequence[float]) -> list[Point]:
    """Its points. Raises UsageError if they enclose nothing."""
    shown = ",".join(f"{number:g}" for number in numbers)
    if len(numbers) < 4 or len(numbers) % 2 or not all(map(math.isfinite, numbers)):
        raise _neither(shown)
    if len(numbers) == 4:
        x, y, width, height = numbers
        if width <= 0 or height <= 0:
            raise UsageError(f"--roi {shown}: width and height must be more than 0")
        return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    following = [*points[1:], points[0]]
    doubled = sum(x * v - u * y for (x, y), (u, v) in zip(points, following, strict=True))
    if not doubled:
        raise UsageError(f"--roi {shown}: the points enclose no area")
    return points


def _neither(shown: object) -> UsageError:
    return UsageError(
        f"--roi {shown} is neither x,y,w,h, nor an outline x,y,x,y,x,y, nor a file with one"
    )


def _read_polygon(path: Path) -> list[Point]:
    """The outline in a JSON or YAML file, in pixels, or as shares of the frame. Raises UsageError.

    A list of points [x, y], or a mapping with `polygon` or one entry in `zones`, and `units`.
    """
    try:
        values = read_yaml(path)
        units = "shares"
        if isinstance(values, Mapping):
            if unknown := [key for key in values if key not in (*_KEYS, "lines", "anchor")]:
                raise ValueError(f"{unknown[0]!r} is unknown: it has {', '.join(_KEYS)}")
            units = values.get("units", units)
            values = _outline(values)
        points = [(float(x), float(y)) for x, y in values]
    except FileNotFoundError:
        raise _neither(path) from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"{path}: is no list of points [x, y], nor a mapping with one as polygon ({error})"
        ) from error
    is_share = all(0 <= edge <= 1 for point in points for edge in point)
    if len(points) < 3 or units not in ("shares", "pixels") or is_share != (units == "shares"):
        raise UsageError(
            f"{path}: three or more points are needed, as shares of the frame from 0 to 1, or "
            "with `units: pixels`"
        )
    return points


def _outline(values: Mapping[str, Any]) -> Any:
    if "polygon" in values:
        return values["polygon"]
    zones = values.get("zones") or []
    if len(zones) != 1:
        raise ValueError(f"{len(zones)} zones")
    return zones[0]["points"]
