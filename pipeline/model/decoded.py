"""The head of a graph that decodes its boxes itself: it ends at them, not at raw heads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.model.heads import Candidates, HeadOfLayout

_NEARLY = 0.9999


@dataclass(frozen=True, slots=True)
class DecodedLayout:
    """The layout of the one output, boxes in pixels of the model input.

    is_final: (1, boxes, 6), each xyxy, confidence and class, after NMS or without need of it;
    else (1, 4 + classes, boxes), each centre, size and the probability of every class.
    strides: of the model's input: its sides are multiples of the largest.
    """

    class_names: tuple[str, ...]
    strides: tuple[int, ...]
    is_final: bool

    @property
    def needs_nms(self) -> bool:
        return not self.is_final


@dataclass(frozen=True, slots=True, eq=False)
class DecodedHead(HeadOfLayout):
    """Decoded boxes -> the few that pass, in plain numpy."""

    layout: DecodedLayout

    def select(
        self, outputs: Sequence[NDArray[np.float32]], confidence_threshold: float
    ) -> Candidates | None:
        """Copy out the boxes that can reach the threshold; None if there are none.

        outputs: one float32 array, without the first dimension of the layout.
        """
        (boxes,) = outputs
        if self.layout.is_final:
            values = boxes[boxes[:, 4] > _NEARLY * confidence_threshold]
            class_id, confidence = values[:, 5].astype(np.int64), values[:, 4]
            known = (class_id >= 0) & (class_id < len(self.class_names))
            values, class_id, confidence = values[known], class_id[known], confidence[known]
        else:
            passing = (boxes[4:].max(axis=0) > _NEARLY * confidence_threshold).nonzero()[0]
            values = boxes[:, passing].T
            class_id = values[:, 4:].argmax(axis=1)
            confidence = values[np.arange(len(values)), 4 + class_id]
        if not len(values):
            return None
        return Candidates(
            np.array(values), np.empty((len(values), 0), np.float32), class_id, confidence.copy()
        )

    def class_scores(self, candidates: Candidates) -> NDArray[np.float32]:
        """The probability of each class, (N, classes); of final boxes, of their own class only."""
        if not self.layout.is_final:
            return candidates.values[:, 4:]
        scores = np.zeros((len(candidates.values), len(self.class_names)), np.float32)
        scores[np.arange(len(scores)), candidates.class_id] = candidates.confidence
        return scores

    def decode(self, candidates: Candidates) -> NDArray[np.float32]:
        first, second = candidates.values[:, :2], candidates.values[:, 2:4]
        if self.layout.is_final:
            return candidates.values[:, :4]
        return np.concatenate((first - second / 2, first + second / 2), axis=1)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        return {}
