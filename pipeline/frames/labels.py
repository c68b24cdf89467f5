"""Where the labels of boxes go, so that none covers another where there is room.

All values are in units of two pixels, the grid of chroma samples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

Corners = tuple[int, int, int, int]
"""Left, top, right and bottom of a box."""
Size = tuple[int, int]
"""Width and height."""

_FURTHER_ROWS = 4
"""So many labels high above or below a box a label may be."""
_MOST_STEPS = 12
"""In each direction, from one earlier label in the way to the next."""


def place_labels(
    boxes: Sequence[Corners], sizes_wh: Sequence[Size], frame_wh: Size
) -> list[tuple[int, int]]:
    """The left top corner of the label of each box, within the frame.

    boxes: the most important first; it has its label above it, or inside where there is no room.
    The others have theirs at the nearest place at their box that covers no earlier label; where
    there is none, as the first.
    """
    taken = _Taken(max((size[1] for size in sizes_wh), default=1))
    places = []
    for box, size_wh in zip(boxes, sizes_wh, strict=True):
        x, y = _place(box, size_wh, frame_wh, taken)
        taken.add((x, y, x + size_wh[0], y + size_wh[1]))
        places.append((x, y))
    return places


def _place(box: Corners, size_wh: Size, frame_wh: Size, taken: _Taken) -> tuple[int, int]:
    width, height = size_wh
    most_x, most_y = frame_wh[0] - width, frame_wh[1] - height
    usual = None
    for left, top in _wanted(box, width, height):
        x = 0 if left < 0 else min(left, most_x)
        y = 0 if top < 0 else min(top, most_y)
        usual = usual or (x, y)
        if taken.in_way(x, y, size_wh) is None:
            return x, y
    assert usual is not None
    near = (
        max(0, box[0] - width),
        max(0, box[1] - _FURTHER_ROWS * height),
        min(most_x, box[2]),
        min(most_y, box[3] + (_FURTHER_ROWS - 1) * height),
    )
    return _beside_others(box, size_wh, near, taken) or usual


def _beside_others(
    box: Corners, size_wh: Size, near: Corners, taken: _Taken
) -> tuple[int, int] | None:
    """The nearest place along earlier labels, from one to the next; None if all are in the way.

    near: the least x and y of a place, and the most.
    """
    left, top, right, _ = box
    width, height = size_wh
    found: list[tuple[int, int, int]] = []
    for begin_x in (left, right - width, left - width, right):
        for begin_y, towards in ((top - height, -1), (top, 1)):
            x, y = begin_x, begin_y
            for _ in range(_MOST_STEPS):
                if not (near[0] <= x <= near[2] and near[1] <= y <= near[3]):
                    break
                other = taken.in_way(x, y, size_wh)
                if other is None:
                    found.append((abs(y - top + height) + abs(x - left), x, y))
                    break
                y = other[1] - height if towards < 0 else other[3]
    return min(found)[1:] if found else None


class _Taken:
    """The labels that are placed, by the bands of this height that they touch."""

    def __init__(self, band_height: int) -> None:
        self._height = max(1, band_height)
        self._bands: dict[int, list[Corners]] = {}

    def in_way(self, left: int, top: int, size_wh: Size) -> Corners | None:
        """A label that one of this size would cover there; None if there is none."""
        right, bottom = left + size_wh[0], top + size_wh[1]
        for band in range(top // self._height, (bottom - 1) // self._height + 1):
            for other in self._bands.get(band, ()):
                if other[0] < right and left < other[2] and other[1] < bottom and top < other[3]:
                    return other
        return None

    def add(self, label: Corners) -> None:
        for band in range(label[1] // self._height, (label[3] - 1) // self._height + 1):
            self._bands.setdefault(band, []).append(label)


def _wanted(box: Corners, width: int, height: int) -> Iterator[tuple[int, int]]:
    """Places for a label of this size, the best first; some may be beyond the frame."""
    left, top, right, bottom = box
    above, inside = (left, top - height), (left, top)
    yield from (above, inside) if top >= height else (inside, above)
    on_the_right = right - width
    yield from ((on_the_right, top - height), (on_the_right, top))
    yield from ((left, bottom), (left, bottom - height))
    yield from ((on_the_right, bottom), (on_the_right, bottom - height))
    yield from ((right, top), (left - width, top))
    for row in range(2, _FURTHER_ROWS + 1):
        yield from ((left, top - row * height), (left, bottom + (row - 1) * height))
