"""The detections of one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

NO_TRACK = -1


@dataclass(frozen=True, slots=True)
class Detections:
    """N boxes of one frame, most confident first.

    xyxy: float32 (N, 4), left, top, right, bottom in pixels of the displayed source frame.
    confidence: float32 (N,), objectness times class probability.
    class_id: int64 (N,).
    track_id: int64 (N,), NO_TRACK for a box of no confirmed track; None where nothing was tracked.
    """

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int64]
    track_id: NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        n = len(self.confidence)
        if self.xyxy.shape != (n, 4) or self.class_id.shape != (n,):
            raise ValueError(
                f"expected xyxy ({n}, 4), confidence ({n},) and class_id ({n},), got "
                f"{self.xyxy.shape}, {self.confidence.shape} and {self.class_id.shape}"
            )

    def __len__(self) -> int:
        return len(self.confidence)

    @classmethod
    def empty(cls) -> Detections:
        return cls(np.empty((0, 4), np.float32), np.empty(0, np.float32), np.empty(0, np.int64))

    def above(self, confidence: float | NDArray[np.float32]) -> Detections:
        """Those of more than this confidence, or each of more than its own."""
        return self.where(self.confidence > confidence)

    def where(self, kept: NDArray[np.bool_]) -> Detections:
        """Those for which a mask (N,) is true."""
        track_id = None if self.track_id is None else self.track_id[kept]
        return Detections(self.xyxy[kept], self.confidence[kept], self.class_id[kept], track_id)

    def followed_by(self, others: Detections) -> Detections:
        """These and behind them the others, without track ids."""
        return Detections(
            np.concatenate((self.xyxy, others.xyxy)),
            np.concatenate((self.confidence, others.confidence)),
            np.concatenate((self.class_id, others.class_id)),
        )

    def moved(self, right: float, down: float) -> Detections:
        """The boxes moved by so many pixels."""
        by = np.array([right, down, right, down], np.float32)
        return replace(self, xyxy=self.xyxy + by)

    def rounded(self) -> Detections:
        """The boxes with the values that a detection line of them has."""
        xyxy, confidence = self._rounded()
        return Detections(
            xyxy.astype(np.float32), confidence.astype(np.float32), self.class_id, self.track_id
        )

    def as_records(self, class_names: Sequence[str]) -> list[dict[str, object]]:
        """The boxes as plain values: pixels to 2 decimals, confidence to 4."""
        xyxy, confidence = self._rounded()
        records: list[dict[str, object]] = [
            {
                "class_id": class_id,
                "class_name": class_names[class_id],
                "confidence": probability,
                "xyxy": box,
            }
            for box, probability, class_id in zip(
                xyxy.tolist(), confidence.tolist(), self.class_id.tolist(), strict=True
            )
        ]
        if self.track_id is not None:
            for record, track_id in zip(records, self.track_id.tolist(), strict=True):
                record["track_id"] = None if track_id == NO_TRACK else track_id
        return records

    def _rounded(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        # A float32 times 100 or 10,000 is exact in float64: the result is the nearest decimal.
        xyxy, confidence = self.xyxy.astype(np.float64), self.confidence.astype(np.float64)
        return np.round(xyxy, 2), np.round(confidence, 4)


def pair_boxes(
    a: Detections, b: Detections, least_iou: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair boxes of the same class greedily by IoU, which is least_iou (above 0) or more.

    Returns the indices into a and those into b of the pairs, highest IoU first.
    """
    overlap = iou_matrix(a.xyxy, b.xyxy)
    overlap[a.class_id[:, None] != b.class_id[None, :]] = 0.0
    rows = greedy_pairs(overlap, least_iou)
    return np.array(list(rows), np.intp), np.array(list(rows.values()), np.intp)


def greedy_pairs(overlap: NDArray[np.float64], least: float) -> dict[int, int]:
    """The column for each row of the pairs that overlap by `least` or more, highest first."""
    near_rows, near_columns = np.nonzero(overlap >= least)
    order = np.argsort(-overlap[near_rows, near_columns], kind="stable")
    pairs: dict[int, int] = {}
    taken: set[int] = set()
    for row, column in zip(near_rows[order].tolist(), near_columns[order].tolist(), strict=True):
        if row not in pairs and column not in taken:
            pairs[row] = column
            taken.add(column)
    return pairs


def iou_matrix(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of every box (N, 4) with every box (M, 4) -> (N, M)."""
    top_left = np.maximum(a[:, None, :2], b[None, :, :2])
    bottom_right = np.minimum(a[:, None, 2:], b[None, :, 2:])
    intersection = (bottom_right - top_left).clip(0).prod(axis=2, dtype=np.float64)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1, dtype=np.float64) for boxes in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - intersection
    iou: NDArray[np.float64] = intersection / np.maximum(union, 1e-9)
    return iou


def iou_of_pairs(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Intersection over union of each box (N, 4) with the one in the same row of b -> (N,)."""
    top_left = np.maximum(a[:, :2], b[:, :2])
    bottom_right = np.minimum(a[:, 2:], b[:, 2:])
    intersection = (bottom_right - top_left).clip(0).prod(axis=1, dtype=np.float64)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(axis=1, dtype=np.float64) for boxes in (a, b)]
    iou: NDArray[np.float64] = intersection / np.maximum(sum(areas) - intersection, 1e-9)
    return iou
