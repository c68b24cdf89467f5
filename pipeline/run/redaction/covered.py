"""What is covered in one frame so far: rectangles, and cells of a grid where they are very many.

Its memory is limited, however many rectangles there are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.int32]

_MOST_COVERS, _CELL_PX = 64, 16
"""More rectangles than these in a frame are covered in whole cells of a grid."""

_MOST_COMPARED = 16 * _MOST_COVERS
"""More than these are not compared with each other."""

_MOST_KEPT, _MOST_PARTS = 2 * _MOST_COMPARED, 256


class CoveredFrame:
    """size_wh: of the frame."""

    __slots__ = ("_cells", "_num_kept", "_parts", "_size_wh")

    def __init__(self, size_wh: tuple[int, int]) -> None:
        self._size_wh = size_wh
        self._parts: list[Pixels] = []
        self._num_kept = 0
        self._cells: NDArray[np.bool_] | None = None

    def add(self, pixels: Pixels) -> None:
        """Cover rectangles (N, 4) of whole pixels within the frame."""
        self._parts.append(pixels)
        self._num_kept += len(pixels)
        if self._num_kept > _MOST_KEPT or len(self._parts) > _MOST_PARTS:
            self._fold()

    def final(self) -> NDArray[np.int64]:
        """All of it, in few rectangles (N, 4): without those that others contain.

        Where they are many, outwards to cells of a grid.
        """
        kept = self._fold()
        if self._cells is None:
            left, top, right, bottom = kept.T[:, :, None]
            contains = (left <= left.T) & (top <= top.T)
            contains &= (right >= right.T) & (bottom >= bottom.T)
            kept = kept[contains.sum(axis=0) == 1]
            if len(kept) <= _MOST_COVERS:
                return np.asarray(kept, np.int64)
            self._cells = _cells_of(kept, self._size_wh)
        return _in_runs(self._cells, self._size_wh)

    def _fold(self) -> Pixels:
        """Keep each rectangle once, and of very many only their cells; returns those kept."""
        pixels = np.concatenate(self._parts) if self._parts else np.empty((0, 4), np.int32)
        if self._cells is None:
            pixels = np.unique(pixels, axis=0)
            if len(pixels) > _MOST_COMPARED:
                self._cells = _cells_of(pixels, self._size_wh)
        elif len(pixels):
            self._cells |= _cells_of(pixels, self._size_wh)
        if self._cells is not None:
            pixels = pixels[:0].copy()
        self._parts, self._num_kept = [pixels], len(pixels)
        return pixels


def _cells_of(pixels: Pixels, size_wh: tuple[int, int]) -> NDArray[np.bool_]:
    """The cells that rectangles touch, (height, width) of the grid."""
    width, height = (-(-side // _CELL_PX) for side in size_wh)
    x0, y0 = (pixels[:, :2] // _CELL_PX).T
    x1, y1 = -(-pixels[:, 2:] // _CELL_PX).T
    steps = np.zeros((height + 1, width + 1), np.int64)
    for x, y, step in ((x0, y0, 1), (x1, y0, -1), (x0, y1, -1), (x1, y1, 1)):
        np.add.at(steps, (y, x), step)
    touched: NDArray[np.bool_] = steps.cumsum(axis=0).cumsum(axis=1)[:height, :width] > 0
    return touched


def _in_runs(cells: NDArray[np.bool_], size_wh: tuple[int, int]) -> NDArray[np.int64]:
    """Rectangles of these cells: runs of a row, joined with equal ones."""
    height = len(cells)
    edges = np.diff(np.pad(cells.astype(np.int8), ((0, 0), (1, 1))), axis=1)
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
