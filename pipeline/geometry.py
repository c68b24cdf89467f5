"""From the picture that a decoder gives to the one that a player shows: cropped and upright."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.filter import Graph
from numpy.typing import NDArray

from pipeline.headers import Crop

_Filters = tuple[tuple[str, str | None], ...]

# The rotation part (a, b, c, d) of a display matrix, by sign, and the filters that obey it.
_UPRIGHT_FILTERS: dict[tuple[int, int, int, int], _Filters] = {
    (1, 0, 0, 1): (),
    (0, -1, 1, 0): (("transpose", "cclock"),),
    (0, 1, -1, 0): (("transpose", "clock"),),
    (0, 1, 1, 0): (("transpose", "cclock_flip"),),
    (0, -1, -1, 0): (("transpose", "clock_flip"),),
    (-1, 0, 0, 1): (("hflip", None),),
    # vflip alone only turns the line order around in place; what follows it makes real rows.
    (1, 0, 0, -1): (("vflip", None), ("copy", None)),
    (-1, 0, 0, -1): (("vflip", None), ("hflip", None)),
}
_LEAST_SHARE = 0.01
"""Of a matrix, smaller parts are rounding errors or a camera held a little askew."""
_ANY_TIME_BASE = Fraction(1, 1000)
_UNKNOWN_TYPE = re.compile(r"(\d+) is not a valid Type")
_MOST_UNKNOWN_TYPES = 8


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is done to every picture of a clip.

    filters: of FFmpeg, with their arguments; none where the picture is shown as it is decoded.
    size_wh: of the picture that is shown. turned: whether width and height change places.
    rotation_degrees: counter-clockwise. warnings: what the file asks for and
    is not done, a line each.
    """

    filters: _Filters
    size_wh: tuple[int, int]
    turned: bool = False
    rotation_degrees: int = 0
    warnings: tuple[str, ...] = ()


def geometry_of(image: av.VideoFrame, crop: Crop | None) -> Geometry:
    """The geometry of a clip whose first picture is this one.

    crop: the sides that its container cuts off, in pixels of the decoded picture.
    """
    width, height = image.width, image.height
    filters: _Filters = ()
    if crop is not None and crop.left + crop.right < width and crop.top + crop.bottom < height:
        width, height = width - crop.left - crop.right, height - crop.top - crop.bottom
        # A cut picture is a part of the decoder's memory; copied, its rows are its own.
        filters = (("crop", f"{width}:{height}:{crop.left}:{crop.top}"), ("copy", None))
    matrix = _display_matrix(image)
    if matrix is None:
        return Geometry(filters, (width, height))
    upright = _UPRIGHT_FILTERS.get(_directions(matrix))
    if upright is None:
        warning = (
            f"the file asks to show its picture turned by {image.rotation % 360} degrees or "
            "skewed, which is not done: boxes and picture are as it was recorded"
        )
        return Geometry(filters, (width, height), warnings=(warning,))
    turned = any(name == "transpose" for name, _ in upright)
    size_wh = (height, width) if turned else (width, height)
    degrees = image.rotation % 360 if upright else 0
    return Geometry((*filters, *upright), size_wh, turned, degrees)


class Display:
    """Applies a geometry to pictures; for one thread at a time."""

    def __init__(self, geometry: Geometry) -> None:
        self._filters = geometry.filters
        self._graph: Graph | None = None

    def __call__(self, image: av.VideoFrame) -> av.VideoFrame:
        if not self._filters:
            return image
        if self._graph is None:
            self._graph = _graph(image, self._filters)
        self._graph.vpush(image)
        return self._graph.vpull()


def _graph(image: av.VideoFrame, filters: _Filters) -> Graph:
    """Filters for pictures like this one."""
    graph = Graph()
    graph.threads = 1
    source = graph.add_buffer(
        width=image.width,
        height=image.height,
        format=image.format,
        time_base=image.time_base or _ANY_TIME_BASE,
    )
    steps = [graph.add(name, argument) for name, argument in filters]
    graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
    return graph


def side_data_of(image: av.VideoFrame) -> Mapping[Any, Any]:
    """A picture's side data, without the kinds that PyAV does not know and fails on."""
    for _ in range(_MOST_UNKNOWN_TYPES):
        try:
            return _side_data(image)
        except ValueError as error:
            unknown = _UNKNOWN_TYPE.match(str(error))
            if unknown is None:
                raise
            image = _without_side_data(image, unknown[1])
    return _side_data(image)


def _side_data(image: av.VideoFrame) -> Mapping[Any, Any]:
    found: Any = image.side_data  # PyAV declares another type than it returns.
    mapping: Mapping[Any, Any] = found
    return mapping


def _without_side_data(image: av.VideoFrame, kind: str) -> av.VideoFrame:
    """The same picture without one kind of side data, by FFmpeg's number."""
    graph = _graph(image, (("sidedata", f"mode=delete:type={kind}"),))
    graph.vpush(image)
    return graph.vpull()


def _display_matrix(image: av.VideoFrame) -> NDArray[np.int32] | None:
    side_data: Any = side_data_of(image).get("DISPLAYMATRIX")
    return None if side_data is None else np.frombuffer(bytes(side_data), np.int32)


def _directions(matrix: NDArray[np.int32]) -> tuple[int, int, int, int]:
    """The signs of (a, b, c, d), small parts taken for 0."""
    parts = matrix[[0, 1, 3, 4]].astype(np.float64)
    parts[np.abs(parts) < _LEAST_SHARE * np.abs(parts).max(initial=0)] = 0
    a, b, c, d = np.sign(parts).astype(int).tolist()
    return a, b, c, d
