"""What the model found in one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Detections:
    """N boxes of one frame, most confident first.

    xyxy: float32 (N, 4), left, top, right, bottom in pixels of the displayed source frame.
    confidence: float32 (N,), objectness times class probability.
    class_id: int64 (N,).
    """

    xyxy: NDArray[np.float32]
    confidence: NDArray[np.float32]
    class_id: NDArray[np.int64]

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

    def as_records(self, class_names: tuple[str, ...]) -> list[dict[str, object]]:
        """The boxes as plain values: pixels to 2 decimals, confidence to 4."""
        return [
            {
                "class_id": class_id,
                "class_name": class_names[class_id],
                "confidence": round(confidence, 4),
                "xyxy": [round(value, 2) for value in box],
            }
            for box, confidence, class_id in zip(
                self.xyxy.tolist(), self.confidence.tolist(), self.class_id.tolist(), strict=True
            )
        ]
