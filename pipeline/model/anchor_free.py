"""The heads of YOLOv8 and later: cells without anchors and objectness, boxes as four distances."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.model.heads import Candidates, HeadOfLayout

_NEARLY = 0.9999


@dataclass(frozen=True, slots=True)
class AnchorFreeLayout:
    """The layout of the raw heads: for each level the logits of the classes, then the box.

    Level i has a cell for each strides[i] pixels, with one prediction. num_bins: values for each
    of the four distances of a box, in cells from the centre of its cell to its left, top, right
    and bottom side: the distance itself (1), or the logits of the distances 0, 1, 2, ...
    needs_nms: whether several cells predict the same object. has_nms_free_branch: whether the model
    was trained with a second branch that has no need of it.
    """

    class_names: tuple[str, ...]
    strides: tuple[int, ...]
    num_bins: int
    needs_nms: bool
    has_nms_free_branch: bool = False

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def shapes(self, input_wh: tuple[int, int]) -> list[list[int]]:
        """The shape of each output for an input size."""
        width, height = input_wh
        return [
            [1, height // stride, width // stride, values]
            for stride in self.strides
            for values in (self.num_classes, 4 * self.num_bins)
        ]


@dataclass(frozen=True, slots=True, eq=False)
class AnchorFreeHead(HeadOfLayout):
    """Raw heads -> boxes, in plain numpy."""

    layout: AnchorFreeLayout

    @property
    def num_float_layers(self) -> int:
        """INT8 goes in steps: distances take them to the box, which a distribution evens out."""
        return 2 if self.layout.num_bins == 1 else 0

    def select(
        self, outputs: Sequence[NDArray[np.float32]], confidence_threshold: float
    ) -> Candidates | None:
        """Copy out the cells with a class that can reach the threshold; None if there are none.

        outputs: two float32 arrays per stride: the logits of the classes (rows, columns, classes)
        and the box (rows, columns, 4 * bins).
        """
        if len(outputs) != 2 * len(self.strides):
            raise ValueError(f"expected two arrays for each of {self.strides}, got {len(outputs)}")
        # A little less than the threshold: confidences are compared later, once rounded.
        threshold = _NEARLY * confidence_threshold
        logit_threshold = math.log(threshold / (1.0 - threshold))
        num_classes = self.layout.num_classes
        values, numbers, num_before = [], [], 0
        for logits, box in zip(outputs[::2], outputs[1::2], strict=True):
            # The logits of all classes lie in a row: one comparison is faster than a maximum.
            cells = (logits.reshape(-1) > logit_threshold).nonzero()[0] // num_classes
            cells = cells[np.flatnonzero(np.diff(cells, prepend=-1))]
            parts = (part.reshape(-1, part.shape[-1])[cells] for part in (logits, box))
            values.append(np.concatenate(tuple(parts), axis=1))
            numbers.append(cells + num_before)
            num_before += logits.shape[0] * logits.shape[1]
        number = np.concatenate(numbers)
        if not number.size:
            return None
        found = np.concatenate(values)
        class_id = found[:, :num_classes].argmax(axis=1)
        shapes_hw = tuple(logits.shape[:2] for logits in outputs[::2])
        return Candidates(
            values=found,
            place=_places(self.strides, shapes_hw)[number],
            class_id=class_id,
            confidence=_sigmoid(found[np.arange(len(found)), class_id]),
        )

    def class_scores(self, candidates: Candidates) -> NDArray[np.float32]:
        """The probability of each class, (N, classes)."""
        return _sigmoid(candidates.values[:, : self.layout.num_classes])

    def decode(self, candidates: Candidates) -> NDArray[np.float32]:
        """The expected distances, from the centre of each cell to the sides of its box."""
        bins = self.layout.num_bins
        distances = candidates.values[:, self.layout.num_classes :].reshape(-1, 4, bins)
        if bins == 1:
            distances = distances[:, :, 0]
        else:
            weight = np.exp(distances - distances.max(axis=2, keepdims=True))
            # No matrix product: it would wake the threads of BLAS.
            expected = (weight * np.arange(bins, dtype=np.float32)).sum(axis=2)
            distances = expected / weight.sum(axis=2)
        centre, stride = candidates.place[:, :2], candidates.place[:, 2:]
        xyxy = np.concatenate((centre - distances[:, :2], centre + distances[:, 2:]), axis=1)
        return np.asarray(xyxy * stride, np.float32)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        return {}


@functools.lru_cache(maxsize=64)
def _places(
    strides: tuple[int, ...], shapes_hw: tuple[tuple[int, int], ...]
) -> NDArray[np.float32]:
    """Centre of each cell of all levels, in cells, and its stride, (N, 3)."""
    levels = []
    for stride, shape_hw in zip(strides, shapes_hw, strict=True):
        row, column = np.indices(shape_hw).reshape(2, -1)
        levels.append(np.column_stack((column + 0.5, row + 0.5, np.full(len(row), stride))))
    return np.concatenate(levels).astype(np.float32)


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # exp overflows float32 below -88; a probability of e^-80 is nothing either way.
    probability: NDArray[np.float32] = 1.0 / (1.0 + np.exp(-np.maximum(logits, np.float32(-80))))
    return probability
