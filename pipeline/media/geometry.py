"""From the picture that a decoder gives to the one that a player shows: cropped and upright."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, TypeVar

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type
from numpy.typing import NDArray

from pipeline.media.frame import BOTTOM_FIELD_FIRST, PROGRESSIVE, TOP_FIELD_FIRST
from pipeline.media.headers import Crop

Place = TypeVar("Place")

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
# Looks at one picture only: no picture depends on where a segment begins.
_DEINTERLACE: _Filters = (("estdif", "mode=frame:deint=interlaced"),)
_INTERLACED = (
    "the clip is interlaced and is not deinterlaced: process it with --deinterlace auto to "
    "deinterlace it"
)
_ANY_TIME_BASE = Fraction(1, 1000)
_UNKNOWN_TYPE = re.compile(r"(\d+) is not a valid Type")
_MOST_UNKNOWN_TYPES = 8


@dataclass(frozen=True, slots=True)
class Geometry:
    """What is done to every picture of a clip.

    filters: of FFmpeg, with their arguments; none where the picture is shown as it is decoded.
    size_wh: of the picture that is shown. turned: whether width and height change places.
    rotation_degrees: counter-clockwise.
    field_order: FFmpeg's number; PROGRESSIVE unless the result is interlaced.
    warnings: what the file asks for and is not done, a line each.
    """

    filters: _Filters
    size_wh: tuple[int, int]
    turned: bool = False
    rotation_degrees: int = 0
    field_order: int = PROGRESSIVE
    warnings: tuple[str, ...] = ()

    @property
    def is_upright(self) -> bool:
        """Whether rows stay rows, in their order."""
        return not self.turned and not self.rotation_degrees


def geometry_of(
    image: av.VideoFrame,
    size_wh: tuple[int, int],
    crop: Crop | None,
    *,
    deinterlace: bool = False,
) -> Geometry:
    """The geometry of a clip whose first picture is this one.

    size_wh: to which all pictures are brought before. crop: the sides that the container cuts off,
    in pixels of that size. deinterlace: whether to make whole pictures of fields.
    """
    if image.interlaced_frame and not deinterlace:
        shown = _shown(image, size_wh, crop, ())
        order = _field_order(image) if shown.is_upright else PROGRESSIVE
        return replace(shown, field_order=order, warnings=(*shown.warnings, _INTERLACED))
    return _shown(image, size_wh, crop, _DEINTERLACE if image.interlaced_frame else ())


def _shown(
    image: av.VideoFrame, size_wh: tuple[int, int], crop: Crop | None, filters: _Filters
) -> Geometry:
    width, height = size_wh
    if crop is not None and crop.left + crop.right < width and crop.top + crop.bottom < height:
        width, height = width - crop.left - crop.right, height - crop.top - crop.bottom
        # A cut picture is a part of the decoder's memory; copied, its rows are its own.
        filters = (*filters, ("crop", f"{width}:{height}:{crop.left}:{crop.top}"), ("copy", None))
    matrix = _display_matrix(image)
    if matrix is None:
        return Geometry(filters, (width, height))
    upright = _UPRIGHT_FILTERS.get(_directions(matrix))
    if upright is None:
        warning = (
            f"the file specifies a rotation by {image.rotation % 360} degrees or a skew, which is "
            "not applied: picture and boxes are as recorded"
        )
        return Geometry(filters, (width, height), warnings=(warning,))
    turned = any(name == "transpose" for name, _ in upright)
    size_wh = (height, width) if turned else (width, height)
    degrees = image.rotation % 360 if upright else 0
    return Geometry((*filters, *upright), size_wh, turned, degrees)


def _field_order(image: av.VideoFrame) -> int:
    """Of an interlaced picture, which PyAV does not tell: a filter changes only the other order."""
    plain, top_first = (
        _filtered(image, (("format", "gray"), *filters))
        for filters in ((), (("fieldorder", "order=tff"),))
    )
    unchanged = np.array_equal(plain.to_ndarray(), top_first.to_ndarray())
    return TOP_FIELD_FIRST if unchanged else BOTTOM_FIELD_FIRST


class Display:
    """Applies a geometry to pictures; for one thread at a time, and one stretch of a clip."""

    def __init__(self, geometry: Geometry) -> None:
        self._filters = geometry.filters
        self._graph: Graph | None = None

    def __call__(
        self, timed: Iterable[tuple[Place, av.VideoFrame]]
    ) -> Iterator[tuple[Place, av.VideoFrame]]:
        """The pictures as they are shown, each with what came with it."""
        if not self._filters:
            yield from timed
            return
        waiting: deque[Place] = deque()
        for place, image in timed:
            if self._graph is None:
                self._graph = filter_graph(image, self._filters)
            waiting.append(place)
            self._graph.vpush(image)
            yield from self._ready(waiting)
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._ready(waiting)

    def _ready(self, waiting: deque[Place]) -> Iterator[tuple[Place, av.VideoFrame]]:
        """What the filters give by now: one that looks ahead gives a picture with the next."""
        assert self._graph is not None
        while waiting:
            try:
                image = self._graph.vpull()
            except (av.BlockingIOError, av.EOFError):
                return
            yield waiting.popleft(), image


def _filtered(image: av.VideoFrame, filters: _Filters) -> av.VideoFrame:
    graph = filter_graph(image, filters)
    graph.vpush(image)
    return graph.vpull()


def filter_graph(image: av.VideoFrame, filters: _Filters) -> Graph:
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


def has_icc_profile(image: av.VideoFrame) -> bool:
    """Whether a picture brings a description of its colours."""
    graph = filter_graph(image, (("sidedata", f"mode=select:type={Type.ICC_PROFILE.value}"),))
    graph.vpush(image)
    try:
        graph.vpull()
    except (av.BlockingIOError, av.EOFError):
        return False
    return True


def side_data_of(image: av.VideoFrame) -> Mapping[Any, Any]:
    """A picture's side data, without the kinds that PyAV does not know and fails on.

    And without the ICC profile, whose name PyAV would free although the picture owns it: for
    that there is `has_icc_profile`.
    """
    image = _without_side_data(image, str(Type.ICC_PROFILE.value))
    for _ in range(_MOST_UNKNOWN_TYPES):
        try:
            return _side_data(image)
        except ValueError as error:
            unknown = _UNKNOWN_TYPE.match(str(error))
            if unknown is None:
                raise
            image = _without_side_data(image, unknown[1])
    return _side_data(image)


def without_captions(image: av.VideoFrame) -> av.VideoFrame:
    """The same picture without the closed captions that come with it."""
    return _without_side_data(image, str(Type.A53_CC.value))


def _side_data(image: av.VideoFrame) -> Mapping[Any, Any]:
    found: Any = image.side_data  # PyAV declares another type than it returns.
    mapping: Mapping[Any, Any] = found
    return mapping


def _without_side_data(image: av.VideoFrame, kind: str) -> av.VideoFrame:
    """The same picture without one kind of side data, by FFmpeg's number."""
    return _filtered(image, (("sidedata", f"mode=delete:type={kind}"),))


def _display_matrix(image: av.VideoFrame) -> NDArray[np.int32] | None:
    side_data: Any = side_data_of(image).get("DISPLAYMATRIX")
    return None if side_data is None else np.frombuffer(bytes(side_data), np.int32)


def _directions(matrix: NDArray[np.int32]) -> tuple[int, int, int, int]:
    """The signs of (a, b, c, d), small parts taken for 0."""
    parts = matrix[[0, 1, 3, 4]].astype(np.float64)
    parts[np.abs(parts) < _LEAST_SHARE * np.abs(parts).max(initial=0)] = 0
    a, b, c, d = np.sign(parts).astype(int).tolist()
    return a, b, c, d
