"""Rectangles of many things at once: (N, 4), left, top, right, bottom."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Boxes = NDArray[np.float64]

_MOST_COVERS, _CELL_PX = 64, 16
"""More rectangles than these in a frame are covered in whole cells of a grid."""


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

    Takes time for the pairs that share columns, not for all N * M.
    """
    if not len(a) or not len(b):
        return np.empty(0, np.intp), np.empty(0, np.intp)
    order = np.argsort(b[:, 0], kind="stable")
    begins, widest = b[order, 0], (b[:, 2] - b[:, 0]).max()
    begin = np.searchsorted(begins, a[:, 0] - widest, "left")
    counts = np.searchsorted(begins, a[:, 2], "right") - begin
    rows = np.repeat(np.arange(len(a)), counts)
    first = np.repeat(begin - np.concatenate(([0], np.cumsum(counts)[:-1])), counts)
    columns = order[np.arange(len(rows)) + first]
    (left, top, right, bottom), theirs = a[rows].T, b[columns].T
    touch = (left <= theirs[2]) & (top <= theirs[3]) & (right >= theirs[0]) & (bottom >= theirs[1])
    rows, columns = rows[touch], columns[touch]
    by_place = np.lexsort((columns, rows))
    return rows[by_place], columns[by_place]


def on_pixels(boxes: Boxes, size_wh: tuple[int, int]) -> NDArray[np.int64]:
    """Outwards to even pixels, within the frame, and without those that others contain.

    Where they are very many, outwards to cells of a grid: so few hold them all.
    """
    left_top, right_bottom = np.floor(boxes[:, :2] / 2) * 2, np.ceil(boxes[:, 2:] / 2) * 2
    clipped = np.hstack((np.maximum(left_top, 0), np.minimum(right_bottom, size_wh)))
    inside = (clipped[:, :2] < clipped[:, 2:]).all(axis=1)
    pixels: NDArray[np.int64] = np.unique(clipped[inside].astype(np.int64), axis=0)
    if len(pixels) > 16 * _MOST_COVERS:
        return _in_cells(pixels, size_wh)
    left, top, right, bottom = pixels.T[:, :, None]
    contains = (left <= left.T) & (top <= top.T) & (right >= right.T) & (bottom >= bottom.T)
    kept: NDArray[np.int64] = pixels[contains.sum(axis=0) == 1]
    return kept if len(kept) <= _MOST_COVERS else _in_cells(kept, size_wh)


def _in_cells(pixels: NDArray[np.int64], size_wh: tuple[int, int]) -> NDArray[np.int64]:
    """Rectangles of whole cells that hold all of these: runs of a row, joined with equal ones."""
    width, height = (-(-side // _CELL_PX) for side in size_wh)
    x0, y0 = (pixels[:, :2] // _CELL_PX).T
    x1, y1 = -(-pixels[:, 2:] // _CELL_PX).T
    steps = np.zeros((height + 1, width + 1), np.int64)
    for x, y, step in ((x0, y0, 1), (x1, y0, -1), (x0, y1, -1), (x1, y1, 1)):
        np.add.at(steps, (y, x), step)
    covered = steps.cumsum(axis=0).cumsum(axis=1)[:height, :width] > 0
    edges = np.diff(np.pad(covered.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    found: list[tuple[int, int, int, int]] = []
    open_runs: dict[tuple[int, int], int] = {}
    for y in range(height + 1):
        runs: set[tuple[int, int]] = set()
        if y < height:
            begins, ends = np.nonzero(edges[y] == 1)[0], np.nonzero(edges[y] == -1)[0]
            runs = set(zip(begins.tolist(), ends.tolist(), strict=True))
        found += [(run[0], open_runs.pop(run), run[1], y) for run in set(open_runs) - runs]
        open_runs |= dict.fromkeys(runs - open_runs.keys(), y)
    in_pixels = np.array(sorted(found), np.int64).reshape(-1, 4) * _CELL_PX
    limits = np.array((*size_wh, *size_wh), np.int64)
    return np.minimum(in_pixels, limits)
