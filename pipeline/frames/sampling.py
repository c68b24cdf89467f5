"""Which frames are inferred, and what the others get."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from pipeline.core.boxes import Detections
from pipeline.frames.interpolate import interpolate
from pipeline.media.frame import Frame


@dataclass(frozen=True, slots=True)
class DetectedFrame:
    """A frame with its boxes; inferred is False where they come from other frames' boxes."""

    frame: Frame
    detections: Detections
    inferred: bool


class DetectionSource(Protocol):
    """Every frame with its detections, in presentation order; iterated over once."""

    def __iter__(self) -> Iterator[DetectedFrame]: ...


class Sampler(Protocol):
    """Decides which frames are inferred.

    window: how many frames `choose` holds back at the most, and `fill_in` too.
    """

    @property
    def window(self) -> int: ...

    def choose(
        self, frames: Iterator[Frame], found: Callable[[int], Detections]
    ) -> Iterator[tuple[Frame, bool]]:
        """Each frame once, in any order, with whether to infer it. Runs on the decoding thread.

        found: waits for the detections of the inferred frame of an index, so that they can decide
            what is inferred next. It keeps those of the latest frames only: ask within `window`
            frames, and only for a frame that was given before.
        """
        ...

    def fill_in(self, frames: Iterable[tuple[Frame, Detections | None]]) -> Iterator[DetectedFrame]:
        """Give detections to the frames without; all come and leave in presentation order."""
        ...


class EveryNth:
    """Infers frames 0, N, 2N, ... and the last one; boxes between two of them are interpolated.

    N = 1 infers every frame.
    """

    def __init__(self, every: int) -> None:
        self._every = every

    @property
    def window(self) -> int:
        return self._every - 1

    def choose(
        self, frames: Iterator[Frame], found: Callable[[int], Detections]
    ) -> Iterator[tuple[Frame, bool]]:
        if self._every == 1:
            yield from ((frame, True) for frame in frames)
            return
        frame = next(frames, None)
        while frame is not None:
            following = next(frames, None)
            yield frame, following is None or frame.index % self._every == 0
            frame = following

    def fill_in(self, frames: Iterable[tuple[Frame, Detections | None]]) -> Iterator[DetectedFrame]:
        return fill_in(frames)


def fill_in(frames: Iterable[tuple[Frame, Detections | None]]) -> Iterator[DetectedFrame]:
    """Give the frames that come without detections those between their neighbours'.

    Frames come in order, the first with detections. Those behind the last inferred one keep its
    boxes. Holds back no more frames than lie between two inferred ones.
    """
    before: tuple[Frame, Detections] | None = None
    waiting: list[Frame] = []
    for frame, detections in frames:
        if detections is None:
            waiting.append(frame)
            continue
        if before is not None:
            first = before[0].pts
            for between in waiting:
                fraction = (between.pts - first) / (frame.pts - first)
                carried = interpolate(before[1], detections, fraction)
                yield DetectedFrame(between, carried, inferred=False)
        waiting = []
        before = (frame, detections)
        yield DetectedFrame(frame, detections, inferred=True)
    if before is not None:
        for frame in waiting:
            yield DetectedFrame(frame, before[1], inferred=False)
