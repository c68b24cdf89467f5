"""Rectangles of many things at once: (N, 4), left, top, right, bottom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]

_MOST_PAIRS = 1 << 18
"""That are looked at in one go."""


def hull(a: Boxes, b: Boxes) -> Boxes:
    """The rectangle around each box and the one in the same place of b, (..., 4)."""
    return np.concatenate(
        (np.minimum(a[..., :2], b[..., :2]), np.maximum(a[..., 2:], b[..., 2:])), axis=-1
    )


def reached(boxes: Boxes, by_xy: Boxes) -> Boxes:
    """Boxes with their edges moved outwards by (..., 2), or (..., 1) in both directions."""
    return np.concatenate((boxes[..., :2] - by_xy, boxes[..., 2:] + by_xy), axis=-1)


def centres(boxes: Boxes) -> Boxes:
    """(..., 2)."""
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def sizes(boxes: Boxes) -> NDArray[np.float64]:
    """The side of the square of the same area, at least 1; (...)."""
    size: NDArray[np.float64] = np.sqrt(np.maximum(np.prod(boxes[..., 2:] - boxes[..., :2], -1), 1))
    return size


def longer_sides(boxes: Boxes) -> NDArray[np.float64]:
    """At least 1; (...)."""
    sides: NDArray[np.float64] = np.maximum((boxes[..., 2:] - boxes[..., :2]).max(axis=-1), 1)
    return sides


def touching(a: Boxes, b: Boxes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """The places in a (N, 4) and in b (M, 4) of all pairs that touch, by place in a.

    Takes time for the pairs that share columns, not for all N * M; memory for some at a time.
    """
    if not len(a) or not len(b):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    order = np.argsort(b[:, 0], kind="stable")
    begins, widest = b[order, 0], (b[:, 2] - b[:, 0]).max()
    begin = np.searchsorted(begins, a[:, 0] - widest, "left")
    counts = np.searchsorted(begins, a[:, 2], "right") - begin
    before = np.concatenate(([0], np.cumsum(counts)))
    found, row = [], 0
    while row < len(a):
        end = int(np.searchsorted(before, before[row] + _MOST_PAIRS, "right")) - 1
        some = slice(row, max(row + 1, end))
        rows = np.repeat(np.arange(len(a))[some], counts[some])
        first = np.repeat((begin - before[:-1])[some], counts[some]) + before[row]
        columns = order[np.arange(len(rows)) + first]
        (left, top, right, bottom), theirs = a[rows].T, b[columns].T
        touch = (left <= theirs[2]) & (top <= theirs[3])
        touch &= (right >= theirs[0]) & (bottom >= theirs[1])
        rows, columns = rows[touch], columns[touch]
        by_place = np.lexsort((columns, rows))
        found.append((rows[by_place], columns[by_place]))
        row = some.stop
    all_rows, all_columns = zip(*found, strict=True)
    return np.concatenate(all_rows), np.concatenate(all_columns)


def on_pixels(boxes: Boxes, size_wh: tuple[int, int]) -> tuple[NDArray[np.int32], NDArray[np.intp]]:
    """Boxes outwards to even pixels, within the frame, and their places among the given ones.

    Without those that are outside.
    """
    left_top, right_bottom = np.floor(boxes[:, :2] / 2) * 2, np.ceil(boxes[:, 2:] / 2) * 2
    clipped = np.hstack((np.maximum(left_top, 0), np.minimum(right_bottom, size_wh)))
    inside = np.flatnonzero((clipped[:, :2] < clipped[:, 2:]).all(axis=1))
    return clipped[inside].astype(np.int32), inside
