"""What the model is given of a frame: all of it, a window, or overlapping tiles, each an input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pipeline.core.region import Window
from pipeline.media.crop import Cropper
from pipeline.media.frame import Frame
from pipeline.model.heads import Candidates
from pipeline.model.letterbox import PADDING_VALUE, Letterbox, letterbox
from pipeline.model.preprocess import Preprocessor

_SAMPLED_ROWS = 16


@dataclass(slots=True, eq=False)
class Part:
    """What the model finds in one view of a frame.

    index: of the frame that it was inferred for. Frames with the same pixels there share it, so it
        holds none.
    candidates: of the head, once it is done.
    """

    index: int
    candidates: Candidates | None = None
    is_done: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """A window of each frame, as an input of the model.

    crop: cuts it out; None where it is all that is to be seen. is_mixed: whether inputs are also
    used for views of another shape.
    """

    window: Window
    letterbox: Letterbox
    preprocess: Preprocessor
    crop: Cropper | None
    is_mixed: bool

    def write(self, frame: Frame, model_input: NDArray[np.uint8]) -> None:
        """Write it into a uint8 (height, width, 3)."""
        if self.is_mixed:
            model_input.fill(PADDING_VALUE)
        if self.crop is not None:
            frame = replace(frame, window=self.crop(frame.image))
        self.preprocess(frame, model_input)


def views_of(windows: Sequence[Window], input_wh: tuple[int, int]) -> tuple[View, ...]:
    """The views of these windows; the last one is not cropped."""
    boxes = [letterbox(window.size_wh, input_wh) for window in windows]
    preprocessors = {box: Preprocessor(box) for box in boxes}
    return tuple(
        View(
            window,
            box,
            preprocessors[box],
            crop=None if window is windows[-1] else Cropper(window),
            is_mixed=len(preprocessors) > 1,
        )
        for window, box in zip(windows, boxes, strict=True)
    )


class LatestParts:
    """What was inferred last in each view, for frames that have the same pixels there."""

    def __init__(self, num_views: int) -> None:
        self._latest: list[tuple[Part, NDArray[np.uint8]] | None] = [None] * num_views
        # An input is written to when the one after it has been submitted.
        self._copies = num_views > 1
        self._whole: tuple[int, list[Part]] | None = None

    def same(self, view: int, index: int, model_input: NDArray[np.uint8]) -> Part | None:
        """The latest part of a view if its input was the same, to the byte.

        index: of the frame; one that was inferred out of order is none that an earlier one repeats.
        """
        latest = self._latest[view]
        if latest is None or latest[0].index >= index or not _equal(model_input, latest[1]):
            return None
        return latest[0]

    def keep(self, view: int, part: Part, model_input: NDArray[np.uint8]) -> None:
        """Take what was inferred as the latest, with its input."""
        self._latest[view] = (part, model_input.copy() if self._copies else model_input)

    def repeated(self, index: int, parts: list[Part]) -> int | None:
        """The index of the frame that had all of these parts last; None if none did."""
        if self._whole is not None and self._whole[1] == parts:
            return self._whole[0]
        self._whole = (index, parts)
        return None


def _equal(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> bool:
    """Whether two inputs are the same to the byte. A few rows are compared first."""
    step = -(-len(a) // _SAMPLED_ROWS)
    return np.array_equal(a[::step], b[::step]) and np.array_equal(a, b)
