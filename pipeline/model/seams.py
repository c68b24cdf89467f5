"""Boxes of overlapping tiles -> boxes of the frame, in which nothing on a seam counts twice.

Two boxes of different tiles are one thing if they agree in what both tiles show. What the border of
a tile may have cut gives way to what no border did, whichever is more confident; a thing that is
cut in all tiles gets the box around its pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.region import Window

_BORDER = 0.01
"""A box that ends so near to a border of its tile, as a share of its side, may be cut by it."""
_COVERED = 0.7
"""A cut box of which so much lies in one that is not cut is a piece of that."""

_Sides = NDArray[np.float64]
"""Left, top, right and bottom, (N, 4) or (4,)."""


@dataclass(frozen=True, slots=True)
class SeamRules:
    """How boxes are merged.

    iou_threshold: above which two boxes are one thing. agnostic: also if their classes differ.
    max_detections: per frame.
    """

    iou_threshold: float
    agnostic: bool
    max_detections: int


def merged(
    tiles: Sequence[tuple[Window, Detections]],
    is_weak: Callable[[Detections], NDArray[np.bool_]],
    rules: SeamRules,
) -> Detections:
    """The boxes of a frame, most confident first, and behind them the weak ones.

    tiles: each with its boxes after NMS, in pixels of the frame. The last tile shows all.
    is_weak: which boxes change none of the others.
    """
    found = Detections.empty()
    for _, boxes in tiles:
        found = found.followed_by(boxes)
    if not len(found):
        return found
    weak = is_weak(found)
    pieces = _Pieces(tiles, found, weak, rules)
    order = np.lexsort((-found.confidence, pieces.is_cut, weak))
    classes = np.zeros(len(found), np.int64) if rules.agnostic else found.class_id
    kept = [
        row for one in np.unique(classes) for row in pieces.things(order[classes[order] == one])
    ]
    rows = np.array(kept, np.intp)
    rows = rows[np.lexsort((-found.confidence[rows], weak[rows]))][: rules.max_detections]
    xyxy = pieces.xyxy[rows].astype(np.float32)
    return Detections(xyxy, found.confidence[rows], found.class_id[rows])


class _Pieces:
    """The boxes of all tiles; those that are pieces of one thing are put together."""

    def __init__(
        self,
        tiles: Sequence[tuple[Window, Detections]],
        found: Detections,
        weak: NDArray[np.bool_],
        rules: SeamRules,
    ) -> None:
        self._weak, self._rules = weak, rules
        windows = np.array([_sides(window) for window, _ in tiles])
        self._tile = np.repeat(np.arange(len(tiles)), [len(boxes) for _, boxes in tiles])
        self._seen = windows[self._tile]
        self.xyxy = found.xyxy.astype(np.float64)
        size = self._seen[:, 2:] - self._seen[:, :2]
        near = abs(self.xyxy - self._seen) <= _BORDER * np.tile(size, 2)
        self.is_cut = (near & (self._seen != windows[-1])).any(axis=1)

    def things(self, order: NDArray[np.intp]) -> Iterator[np.intp]:
        """Of some boxes, the first one of each thing, which has grown to all of it."""
        while order.size:
            first, order = order[0], order[1:]
            order = self._without_those_of(first, order)
            yield first

    def _without_those_of(self, first: np.intp, others: NDArray[np.intp]) -> NDArray[np.intp]:
        tiles = [self._tile[first]]
        while others.size:
            pieces = self._same(first, others)
            if not pieces.any():  # As for most things.
                break
            pieces &= ~np.isin(self._tile[others], tiles)
            if not pieces.any():
                break
            strong, others = others[pieces & ~self._weak[others]], others[~pieces]
            if not self.is_cut[first] or not strong.size:
                break  # A box that no border cuts is all of the thing.
            tiles += self._tile[strong].tolist()
            self._grow(first, strong)
        return others

    def _same(self, first: np.intp, others: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Which boxes are of the thing of the first one."""
        one, boxes = self.xyxy[first], self.xyxy[others]
        seen = _common(self._seen[first], self._seen[others])
        ours, theirs = _common(one, seen), _common(boxes, seen)
        overlap = _area(_common(ours, theirs))
        union = _area(ours) + _area(theirs) - overlap
        same = overlap > self._rules.iou_threshold * union
        is_cut = self.is_cut[others]
        if not self.is_cut[first] and is_cut.any():
            same |= is_cut & (_area(_common(one, boxes)) >= _COVERED * _area(boxes))
        return np.asarray(same)

    def _grow(self, first: np.intp, pieces: NDArray[np.intp]) -> None:
        """Let the first one, and what its tile shows, reach around all."""
        for sides in (self.xyxy, self._seen):
            around = np.vstack((sides[first], sides[pieces]))
            sides[first, :2] = around[:, :2].min(axis=0)
            sides[first, 2:] = around[:, 2:].max(axis=0)


def _sides(window: Window) -> tuple[float, ...]:
    width, height = window.size_wh
    return window.left, window.top, window.left + width, window.top + height


def _common(a: _Sides, b: _Sides) -> _Sides:
    """What is in both; a side beyond the opposite one stands for nothing."""
    return np.concatenate(
        (np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])), axis=-1
    )


def _area(sides: _Sides) -> NDArray[np.float64]:
    extent = np.maximum(sides[..., 2:] - sides[..., :2], 0.0)
    return np.asarray(extent[..., 0] * extent[..., 1])
