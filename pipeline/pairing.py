"""Which boxes of two frames, or of two models, show the same thing; pure numpy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipeline.detections import Detections


def pair_boxes(
    a: Detections, b: Detections, least_iou: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair boxes of the same class, those that overlap most first; indices into a and into b."""
    overlap = iou_matrix(a.xyxy, b.xyxy)
    overlap[a.class_id[:, None] != b.class_id[None, :]] = 0.0
    rows: list[int] = []
    columns: list[int] = []
    while overlap.size and overlap.max() >= least_iou:
        row, column = np.unravel_index(int(overlap.argmax()), overlap.shape)
        rows.append(int(row))
        columns.append(int(column))
        overlap[row, :] = overlap[:, column] = 0.0
    return np.asarray(rows, np.intp), np.asarray(columns, np.intp)


def iou_matrix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of every box (N, 4) with every box (M, 4) -> (N, M)."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = (bottom_right - top_left).clip(0).prod(axis=2, dtype=np.float64)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1, dtype=np.float64) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    iou: NDArray[np.float64] = intersection / np.maximum(union, 1e-9)
    return iou
