"""The heads of YOLOv5: cells with anchors, at three or four strides."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.model.heads import Candidates, HeadOfLayout

STRIDES = {3: (8, 16, 32), 4: (8, 16, 32, 64)}
"""The strides of the published models, by the number of levels: P5 and P6."""

_NEARLY = 0.9999


@dataclass(frozen=True, slots=True, eq=False)
class HeadConvolution:
    """The 1x1 convolution of one head, taken out of the graph to be done for candidates alone.

    weight: float32 (anchors, values, channels); bias: float32 (anchors, values).
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeadLayout:
    """The layout of the raw heads, one for each level.

    Head i has a cell for each strides[i] pixels and, in every cell, one prediction per anchor:
    x, y, w, h, objectness and one score per class, all before the sigmoid.

    anchors_px: (width, height) in pixels of the model input, as many for each head.
    """

    class_names: tuple[str, ...]
    anchors_px: tuple[tuple[tuple[float, float], ...], ...]
    strides: tuple[int, ...]

    @property
    def needs_nms(self) -> bool:
        return True

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def num_anchors(self) -> int:
        return len(self.anchors_px[0])

    @property
    def num_values(self) -> int:
        """Values per prediction: box, objectness, classes."""
        return 5 + self.num_classes


@dataclass(frozen=True, slots=True, eq=False)
class YOLOv5Head(HeadOfLayout):
    """Raw heads -> boxes, in plain numpy.

    convolutions: what makes predictions of the outputs where they come out in parts; else none.
    """

    layout: HeadLayout
    convolutions: tuple[HeadConvolution, ...] = ()

    def select(
        self, outputs: Sequence[NDArray[np.float32]], confidence_threshold: float
    ) -> Candidates | None:
        """Copy out the predictions that can reach the threshold; None if there are none.

        outputs: one float32 array (rows, columns, anchors * (5 + classes)) per stride; or two, the
        objectness (rows, columns, anchors) and the features (rows, columns, channels), from which
        `convolutions` makes the rest. Confidence is objectness times class probability, so
        objectness alone must pass: its logit is compared, and only what passes is touched again.
        """
        logit_threshold = math.log(confidence_threshold / (1.0 - confidence_threshold))
        if len(outputs) not in (len(self.strides), 2 * len(self.convolutions)):
            raise ValueError(
                f"expected {len(self.strides)} heads, or as many pairs with their convolutions, "
                f"got {len(outputs)} arrays and {len(self.convolutions)} convolutions"
            )
        split = len(outputs) > len(self.strides)
        num_values, column = (1, 0) if split else (self.layout.num_values, 4)
        firsts = [head.reshape(-1, num_values) for head in (outputs[::2] if split else outputs)]
        passing = [(first[:, column] > logit_threshold).nonzero()[0] for first in firsts]
        if not (num_passing := sum(map(len, passing))):
            return None
        logits = np.empty((num_passing, self.layout.num_values), np.float32)
        number = np.empty(num_passing, np.intp)
        begin = num_before = 0
        for level, rows in enumerate(passing):
            part = slice(begin, begin + len(rows))
            if split:
                features = outputs[2 * level + 1]
                rows = _convolve(self.convolutions[level], features, rows, out=logits[part])
            else:
                logits[part] = firsts[level][rows]
            np.add(rows, num_before, out=number[part])
            begin, num_before = part.stop, num_before + len(firsts[level])
        class_id = logits[:, 5:].argmax(axis=1)
        best = logits[np.arange(num_passing), 5 + class_id]
        confidence = np.multiply(*_sigmoid(np.array((logits[:, 4], best))))
        # A little more than pass: with several classes to a box, each is compared later.
        likely = np.flatnonzero(confidence > _NEARLY * confidence_threshold)
        if not likely.size:
            return None
        likely = likely[number[likely].argsort()]
        shapes_hw = tuple(head.shape[:2] for head in (outputs[::2] if split else outputs))
        place = _places(self.layout, shapes_hw)[number[likely]]
        return Candidates(logits[likely], place, class_id[likely], confidence[likely])

    def class_scores(self, candidates: Candidates) -> NDArray[np.float32]:
        """Class probability times objectness, (N, classes)."""
        probability = _sigmoid(candidates.values[:, 4:])
        return probability[:, 1:] * probability[:, :1]

    def decode(self, candidates: Candidates) -> NDArray[np.float32]:
        """YOLOv5's box equations: centre 2s - 0.5 cells from the cell, size (2s)^2 anchors."""
        place, probability = candidates.place, _sigmoid(candidates.values[:, :4])
        centre = (probability[:, 0:2] * 2.0 - 0.5 + place[:, 0:2]) * place[:, 2:3]
        half = (probability[:, 2:4] * 2.0) ** 2 * place[:, 3:5] / 2.0
        return np.concatenate((centre - half, centre + half), axis=1)

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The convolutions."""
        return {
            f"{name}_{level}": array
            for level, part in enumerate(self.convolutions)
            for name, array in (("weight", part.weight), ("bias", part.bias))
        }

    @classmethod
    def from_stored(cls, layout: HeadLayout, arrays: Mapping[str, NDArray[Any]]) -> YOLOv5Head:
        """What `arrays` gave. Raises KeyError for other arrays."""
        levels = range(len(arrays) // 2)
        return cls(
            layout,
            tuple(HeadConvolution(arrays[f"weight_{i}"], arrays[f"bias_{i}"]) for i in levels),
        )


@functools.lru_cache(maxsize=64)
def _places(layout: HeadLayout, shapes_hw: tuple[tuple[int, int], ...]) -> NDArray[np.float32]:
    """Column, row, stride, anchor width and height of every prediction of all levels, (N, 5)."""
    levels = []
    for shape_hw, level_stride, level_anchors in zip(
        shapes_hw, layout.strides, layout.anchors_px, strict=True
    ):
        row, column, anchor = np.indices((*shape_hw, layout.num_anchors)).reshape(3, -1)
        stride = np.full(len(row), level_stride)
        levels.append(np.column_stack((column, row, stride, np.array(level_anchors)[anchor])))
    return np.concatenate(levels).astype(np.float32)


def _convolve(
    convolution: HeadConvolution,
    features: NDArray[np.float32],
    rows: NDArray[np.intp],
    *,
    out: NDArray[np.float32],
) -> NDArray[np.intp]:
    """Write the predictions (N, values) at some rows, and return the rows in the order of these.

    features: (rows, columns, channels). The order is that of the anchors: one product for each of
    them takes two thirds of the time of one product of all features with all anchors.
    """
    num_anchors, _, channels = convolution.weight.shape
    cells, anchor = np.divmod(rows, num_anchors)
    by_anchor = anchor.argsort(kind="stable")
    chosen = features.reshape(-1, channels)[cells[by_anchor]]
    begin = 0
    for number, count in enumerate(np.bincount(anchor, minlength=num_anchors).tolist()):
        end = begin + count
        part = out[begin:end]
        np.matmul(chosen[begin:end], convolution.weight[number].T, out=part)
        part += convolution.bias[number]
        begin = end
    return rows[by_anchor]


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # exp overflows float32 below -88; a probability of e^-80 is nothing either way.
    probability: NDArray[np.float32] = np.maximum(logits, np.float32(-80.0))
    np.negative(probability, out=probability)
    np.exp(probability, out=probability)
    probability += 1.0
    np.reciprocal(probability, out=probability)
    return probability
