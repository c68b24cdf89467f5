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


def place_labels(
    boxes: Sequence[Corners], sizes_wh: Sequence[Size], frame_wh: Size
) -> list[tuple[int, int]]:
    """The left top corner of the label of each box, within the frame.

    boxes: the most important first; it has its label above it, or inside where there is no room.
    The others have theirs at the nearest place along their box that covers no earlier label;
    where there is none, as the first.
    """
    width, height = frame_wh
    taken = _Taken(max((size[1] for size in sizes_wh), default=1))
    places = []
    for box, (label_width, label_height) in zip(boxes, sizes_wh, strict=True):
        most_x, most_y = width - label_width, height - label_height
        usual = None
        for left, top in _wanted(box, label_width, label_height):
            x = 0 if left < 0 else min(left, most_x)
            y = 0 if top < 0 else min(top, most_y)
            usual = usual or (x, y)
            if taken.is_free(x, y, x + label_width, y + label_height):
                break
        else:
            assert usual is not None
            x, y = usual
        taken.add((x, y, x + label_width, y + label_height))
        places.append((x, y))
    return places


class _Taken:
    """The labels that are placed, by the bands of this height that they touch."""

    def __init__(self, band_height: int) -> None:
        self._height = max(1, band_height)
        self._bands: dict[int, list[Corners]] = {}

    def is_free(self, left: int, top: int, right: int, bottom: int) -> bool:
        for band in range(top // self._height, (bottom - 1) // self._height + 1):
            for other in self._bands.get(band, ()):
                if other[0] < right and left < other[2] and other[1] < bottom and top < other[3]:
                    return False
        return True

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
