"""Which frames are inferred, and what the others get."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.frames.interpolate import Interpolation, Pairs
from pipeline.media.frame import Frame


class Choice(Enum):
    """What happens to a frame.

    AUDIT: it is inferred to be compared, and keeps the boxes that it has without that.
    """

    INFER = "infer"
    AUDIT = "audit"
    LEAVE = "leave"


@dataclass(frozen=True, slots=True)
class FoundFrame:
    """A frame with what the model found in it; None where it was not inferred.

    weak: see `DetectedFrame`.
    """

    frame: Frame
    detections: Detections | None
    is_audit: bool = False
    weak: Detections | None = None


@dataclass(frozen=True, slots=True)
class DetectedFrame:
    """A frame with its boxes; inferred is False where they come from other frames' boxes.

    audit: what the model found in such a frame, if it was inferred to be compared.
    weak: boxes of less confidence than asked for, for a tracker or to be covered; of an audit all
        that the model found. None if none are kept, and in frames that were not inferred.
    covers: what is to be covered, whole pixels (N, 4), left, top, right, bottom; None where
        nothing is redacted.
    """

    frame: Frame
    detections: Detections
    inferred: bool
    audit: Detections | None = None
    weak: Detections | None = None
    covers: NDArray[np.int64] | None = None


class DetectionSource(Protocol):
    """Every frame with its detections, in presentation order; iterated over once."""

    def __iter__(self) -> Iterator[DetectedFrame]: ...


class Sampler(Protocol):
    """Decides which frames are inferred.

    weakest_confidence: of the boxes that it needs, even if weaker ones than asked for.
    """

    @property
    def weakest_confidence(self) -> float: ...

    def window(self, num_requests: int) -> int:
        """How many frames `choose` and `fill_in` hold back together at the most.

        num_requests: frames that can be inferred at the same time.
        """
        ...

    def choose(
        self, frames: Iterator[Frame], found: Callable[[int], Detections], window: int
    ) -> Iterator[tuple[Frame, Choice]]:
        """Each frame once, in any order, with what happens to it. Runs on the decoding thread.

        window: as `window` gave it.
        found: waits for the detections of the inferred frame of an index, so that they can decide
            what is inferred next. It keeps those of the latest frames only: ask within `window`
            frames, and only for a frame that was given before.
        """
        ...

    def fill_in(self, frames: Iterable[FoundFrame]) -> Iterator[DetectedFrame]:
        """Give detections to the frames without; all come and leave in presentation order."""
        ...


class EveryNth:
    """Infers frames 0, N, 2N, ... and the last one; boxes between two of them are interpolated.

    N = 1 infers every frame.
    """

    weakest_confidence = 1.0

    def __init__(self, every: int) -> None:
        self._every = every

    def window(self, num_requests: int) -> int:
        return 2 * (self._every - 1)

    def choose(
        self, frames: Iterator[Frame], found: Callable[[int], Detections], window: int
    ) -> Iterator[tuple[Frame, Choice]]:
        if self._every == 1:
            yield from ((frame, Choice.INFER) for frame in frames)
            return
        frame = next(frames, None)
        while frame is not None:
            following = next(frames, None)
            is_inferred = following is None or frame.index % self._every == 0
            yield frame, Choice.INFER if is_inferred else Choice.LEAVE
            frame = following

    def fill_in(self, frames: Iterable[FoundFrame]) -> Iterator[DetectedFrame]:
        return fill_in(frames)


def _all_of(audited: FoundFrame) -> Detections | None:
    """What the model found in a frame whose own boxes are interpolated, for who keeps weak ones."""
    if audited.detections is None or audited.weak is None:
        return None
    return audited.detections.followed_by(audited.weak)


def fill_in(
    frames: Iterable[FoundFrame], pairs_behind: Callable[[int], Pairs | None] = lambda _: None
) -> Iterator[DetectedFrame]:
    """Give the frames that were not inferred the boxes between their neighbours'.

    Frames come in order, the first one inferred. Those behind the last inferred one keep its
    boxes. Holds back no more frames than lie between two inferred ones.

    pairs_behind: gives the pairs of the inferred frame of an index and the next one, if they are
        known.
    """
    before: tuple[Frame, Detections] | None = None
    waiting: list[FoundFrame] = []
    for found in frames:
        frame, detections = found.frame, found.detections
        if detections is None or found.is_audit:
            waiting.append(found)
            continue
        if before is not None and waiting:
            first, between = (
                before[0].pts,
                Interpolation(before[1], detections, pairs_behind(before[0].index)),
            )
            for one in waiting:
                carried = between.at((one.frame.pts - first) / (frame.pts - first))
                yield DetectedFrame(
                    one.frame, carried, inferred=False, audit=one.detections, weak=_all_of(one)
                )
        waiting = []
        before = (frame, detections)
        yield DetectedFrame(frame, detections, inferred=True, weak=found.weak)
    if before is not None:
        for one in waiting:
            yield DetectedFrame(
                one.frame, before[1], inferred=False, audit=one.detections, weak=_all_of(one)
            )
