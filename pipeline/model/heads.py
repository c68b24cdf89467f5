"""What a model's outputs stand for: the seam between an engine and the detections of a frame."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.config import DetectOptions
from pipeline.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class Candidates:
    """The predictions of one frame whose best class may pass the threshold.

    values: float32 (N, values), the outputs of each prediction, copied; their meaning, and that of
        `place`, is that of the head.
    place: float32 (N, k), where each prediction comes from.
    class_id: int64 (N,), the best class; confidence: float32 (N,), of that class.
    """

    values: NDArray[np.float32]
    place: NDArray[np.float32]
    class_id: NDArray[np.int64]
    confidence: NDArray[np.float32]

    def __getitem__(self, rows: NDArray[np.intp]) -> Candidates:
        return Candidates(
            self.values[rows], self.place[rows], self.class_id[rows], self.confidence[rows]
        )


class Head(Protocol):
    """The detection head of one model.

    class_names: by class id. strides: pixels of the model input per cell of each level; the sides
    of the input are multiples of the largest. needs_nms: whether boxes of one object can overlap.

    The outputs of a model are only lent, so `select` copies the few predictions that can pass the
    threshold out of them, on a thread of the engine; everything else is done later.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def strides(self) -> tuple[int, ...]: ...

    @property
    def needs_nms(self) -> bool: ...

    def select(
        self, outputs: Sequence[NDArray[np.float32]], confidence_threshold: float
    ) -> Candidates | None:
        """The predictions of one frame that can reach the threshold; None if there are none."""

    def class_scores(self, candidates: Candidates) -> NDArray[np.float32]:
        """The confidence of every class, (N, classes)."""

    def decode(self, candidates: Candidates) -> NDArray[np.float32]:
        """The boxes, float32 (N, 4), xyxy in pixels of the model input."""

    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """What is stored beside the graph, by name; empty if the graph has everything."""


def select_class_ids(detect: DetectOptions, class_names: Sequence[str]) -> frozenset[int] | None:
    """The numbers of the classes to keep. Raises UsageError for one the model does not know."""
    if detect.classes is None:
        return None
    numbers = {name: number for number, name in enumerate(class_names)}
    wanted, unknown = set(), []
    for entry in detect.classes:
        if entry in numbers:
            wanted.add(numbers[entry])
        elif entry.isdecimal() and int(entry) < len(class_names):
            wanted.add(int(entry))
        else:
            unknown.append(entry)
    if clip := next((entry for entry in unknown if os.path.exists(entry)), None):  # noqa: PTH110
        raise UsageError(
            f"{clip!r} is taken for a class, and there is a file of this name: clips come before "
            f"--classes, or after --, as in --classes person -- {clip}"
        )
    if unknown:
        raise UsageError(
            f"class {unknown[0]!r} is unknown; this model has: {', '.join(class_names)}"
        )
    return frozenset(wanted)
