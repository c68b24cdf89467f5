"""Which frames are inferred: what was found in some may decide on others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pipeline.core.boxes import Detections
from pipeline.core.config import InferOptions
from pipeline.frames.sampling import Choice, DetectedFrame, FoundFrame, fill_in
from pipeline.media.frame import Frame
from tests.conftest import process, read_detections, with_light, write_clip

STEP = 8
NUM_FRAMES = 60
CHANGE = 19
"""The first frame that shows something else."""


class Bisecting:
    """Infers every eighth frame and the last; between two that differ, the middle, and so on."""

    weakest_confidence = 1.0

    def __init__(self, every: int) -> None:
        assert every == 2  # Only so that the lines say which frames were inferred.

    def window(self, num_requests: int) -> int:
        return 2 * STEP

    def choose(
        self, frames: Iterator[Frame], found: Callable[[int], Detections], window: int
    ) -> Iterator[tuple[Frame, Choice]]:
        held: list[Frame] = []
        for frame in frames:
            held.append(frame)
            if frame.index == 0:
                yield frame, Choice.INFER
            elif frame.index % STEP == 0:
                yield frame, Choice.INFER
                yield from self._between(held, found)
                held = [frame]
        if len(held) > 1:
            yield held[-1], Choice.INFER
            yield from self._between(held, found)

    def _between(
        self, held: list[Frame], found: Callable[[int], Detections]
    ) -> Iterator[tuple[Frame, Choice]]:
        """Both ends of what is held have been given."""
        inner = held[1:-1]
        first, last = (found(held[end].index).xyxy for end in (0, -1))
        if not inner:
            return
        if np.array_equal(first, last):
            yield from ((frame, Choice.LEAVE) for frame in inner)
            return
        middle = len(held) // 2
        yield held[middle], Choice.INFER
        yield from self._between(held[: middle + 1], found)
        yield from self._between(held[middle:], found)

    def fill_in(self, frames: Iterable[FoundFrame]) -> Iterator[DetectedFrame]:
        return fill_in(frames)


def cell(index: int) -> tuple[int, int]:
    return (3, 4) if index < CHANGE else (10, 5)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("change") / "clip.mp4"
    return write_clip(path, [with_light(cell(i)) for i in range(NUM_FRAMES)])


@pytest.mark.parametrize("reuse_duplicates", [False, True])
@pytest.mark.parametrize(("batch", "num_requests"), [(1, 1), (1, 4), (3, 2)])
def test_what_is_found_decides_what_is_inferred_next(
    batch: int,
    num_requests: int,
    reuse_duplicates: bool,
    clip: Path,
    tmp_path: Path,
    tiny_weights: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.frames.segment.EveryNth", Bisecting)
    infer = InferOptions(batch=batch, num_requests=num_requests)
    process(
        clip,
        tmp_path / "out",
        tiny_weights,
        infer=infer,
        every=2,
        reuse_duplicates=reuse_duplicates,
    )
    lines = read_detections(tmp_path / "out")
    assert [line["frame_index"] for line in lines] == list(range(NUM_FRAMES))
    inferred = [line["frame_index"] for line in lines if not line["interpolated"]]
    assert inferred == [0, 8, 16, 18, 19, 20, 24, 32, 40, 48, 56, 59]
    boxes = [line["detections"][0]["xyxy"] for line in lines]
    changes = [i for i, (a, b) in enumerate(pairwise(boxes), 1) if a != b]
    assert changes == [CHANGE]
