"""The text of --roi: a rectangle or an outline, checked, also from a file."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.core.errors import UsageError
from pipeline.core.yaml_file import read_yaml

Point = tuple[float, float]

_NUMBERS = re.compile(r"\s*[-+.\deE]+(\s*,\s*[-+.\deE]+)+\s*")
_KEYS = ("units", "polygon", "zones")
_OTHER_KEYS = ("lines", "anchor", "bin_seconds")
"""What `pipeline events` reads in the same file."""


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
    polygon(numbers)
    return ",".join(f"{number:.10g}" for number in numbers)


def polygon(numbers: Sequence[float]) -> list[Point]:
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


def _floats(text: str) -> list[float]:
    try:
        return [float(number) for number in text.split(",")]
    except ValueError:
        raise _neither(text) from None


def _neither(shown: object) -> UsageError:
    return UsageError(
        f"--roi {shown} is neither x,y,w,h, nor a polygon x,y,x,y,x,y, nor a file with one"
    )


def _read_polygon(path: Path) -> list[Point]:
    """The outline in a JSON or YAML file, in pixels, or as shares of the frame. Raises UsageError.

    A list of points [x, y], or a mapping with `polygon` or one entry in `zones`, and `units`.
    """
    try:
        values = read_yaml(path)
        units = "shares"
        if isinstance(values, Mapping):
            if unknown := [key for key in values if key not in _KEYS + _OTHER_KEYS]:
                raise ValueError(f"{unknown[0]!r} is unknown: it has {', '.join(_KEYS)}")
            units = values.get("units", units)
            values = _outline(values)
        points = [(float(x), float(y)) for x, y in values]
    except FileNotFoundError:
        raise _neither(path) from None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except (ValueError, TypeError, LookupError, OverflowError) as error:
        raise UsageError(
            f"{path}: is neither a list of points [x, y] nor a mapping with such a list as "
            f"polygon ({error})"
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
