"""What the numbers of YOLOv5's raw heads stand for."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pipeline.core.config import DetectOptions
from pipeline.core.errors import UsageError

STRIDES = (8, 16, 32)


@dataclass(frozen=True, slots=True, eq=False)
class HeadConvolution:
    """The 1x1 convolution of one head, taken out of the graph to be done for candidates alone.

    weight: float32 (anchors, values, channels); bias: float32 (anchors, values).
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class HeadLayout:
    """The layout of the three raw heads.

    Head i has a cell for each strides[i] pixels and, in every cell, one prediction per anchor:
    x, y, w, h, objectness and one score per class, all before the sigmoid.

    anchors_px: (width, height) in pixels of the model input, three per head.
    """

    class_names: tuple[str, ...]
    anchors_px: tuple[tuple[tuple[float, float], ...], ...]
    strides: tuple[int, ...] = STRIDES

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

    def to_json(self) -> str:
        return json.dumps(
            {
                "class_names": self.class_names,
                "anchors_px": self.anchors_px,
                "strides": self.strides,
            }
        )

    @classmethod
    def from_json(cls, text: str) -> HeadLayout:
        """Raises ValueError, KeyError or TypeError for what to_json did not write."""
        values = json.loads(text)
        return cls(
            class_names=tuple(str(name) for name in values["class_names"]),
            anchors_px=tuple(
                tuple((float(w), float(h)) for w, h in head) for head in values["anchors_px"]
            ),
            strides=tuple(int(stride) for stride in values["strides"]),
        )


def select_class_ids(detect: DetectOptions, layout: HeadLayout) -> frozenset[int] | None:
    """The numbers of the classes to keep. Raises UsageError for one the model does not know."""
    if detect.classes is None:
        return None
    numbers = {name: number for number, name in enumerate(layout.class_names)}
    wanted, unknown = set(), []
    for entry in detect.classes:
        if entry in numbers:
            wanted.add(numbers[entry])
        elif entry.isdecimal() and int(entry) < layout.num_classes:
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
            f"class {unknown[0]!r} is unknown; this model has: {', '.join(layout.class_names)}"
        )
    return frozenset(wanted)
