"""A head of no family, which stands for the ones to come."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.model.heads import Candidates


@dataclasses.dataclass(frozen=True)
class DistancesHead:
    """A head without anchors: four distances from the centre of a cell, in cells, and a score."""

    needs_nms: bool = True
    class_names: tuple[str, ...] = ("light", "shade")
    strides: tuple[int, ...] = (8, 16)
    num_float_layers: int = 0

    def select(
        self, outputs: Sequence[NDArray[np.float32]], confidence_threshold: float
    ) -> Candidates | None:
        values, place = [], []
        for output, stride in zip(outputs, self.strides, strict=True):
            rows, columns = np.nonzero(output[..., 4:].max(axis=2) > confidence_threshold)
            values.append(output[rows, columns])
            place.append(np.column_stack((columns, rows, np.full(len(rows), stride))))
        found = np.concatenate(values)
        if not len(found):
            return None
        where = np.concatenate(place).astype(np.float32)
        return Candidates(found, where, found[:, 4:].argmax(axis=1), found[:, 4:].max(axis=1))

    def class_scores(self, candidates: Candidates) -> NDArray[np.float32]:
        return candidates.values[:, 4:]

    def decode(self, candidates: Candidates) -> NDArray[np.float32]:
        centre, stride = candidates.place[:, :2] + 0.5, candidates.place[:, 2:]
        distances = candidates.values[:, :4]
        corners = np.hstack((centre - distances[:, :2], centre + distances[:, 2:]))
        return np.asarray(corners * stride, np.float32)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        return {}
