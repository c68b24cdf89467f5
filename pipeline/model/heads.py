"""What a model's outputs stand for: the seam between an engine and the detections of a frame."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pipeline.core.config import DetectOptions, RedactOptions
from pipeline.core.errors import UsageError


class Layout(Protocol):
    """The layout of a model's outputs, see `Head`."""

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def strides(self) -> tuple[int, ...]: ...

    @property
    def needs_nms(self) -> bool: ...


class HeadOfLayout:
    """The part of a head that its layout has."""

    __slots__ = ()
    layout: Layout

    @property
    def num_float_layers(self) -> int:
        return 0

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.layout.class_names

    @property
    def strides(self) -> tuple[int, ...]:
        return self.layout.strides

    @property
    def needs_nms(self) -> bool:
        return self.layout.needs_nms


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
    num_float_layers: so many of the last convolutions before each output cost more accuracy in INT8
    than time in float.

    The outputs of a model are only lent, so `select` copies the few predictions that can pass the
    threshold out of them, on a thread of the engine; everything else is done later.
    """

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def strides(self) -> tuple[int, ...]: ...

    @property
    def needs_nms(self) -> bool: ...

    @property
    def num_float_layers(self) -> int: ...

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
    return None if detect.classes is None else _ids("--classes", detect.classes, class_names)


def covered_class_ids(redact: RedactOptions, class_names: Sequence[str]) -> frozenset[int]:
    """The numbers of the classes to cover. Raises UsageError for one the model does not know."""
    return _ids("--redact", redact.covered or (), class_names)


def require_all_covered(
    redact: RedactOptions, class_ids: frozenset[int] | None, class_names: Sequence[str]
) -> None:
    """Raise UsageError for a class to cover that is unknown, or of which no boxes are kept.

    class_ids: the numbers of the classes to keep; None keeps all.
    """
    missing = covered_class_ids(redact, class_names) - (class_ids or frozenset())
    if class_ids is not None and missing:
        names = ", ".join(class_names[number] for number in sorted(missing))
        raise UsageError(f"--classes leaves out {names}, which --redact is to cover: name it too")


def _ids(flag: str, entries: Sequence[str], class_names: Sequence[str]) -> frozenset[int]:
    for entry in entries:
        if not _class_ids(entry, class_names) and os.path.exists(entry):  # noqa: PTH110
            raise UsageError(
                f"{entry!r} is taken for a class, and there is a file of this name: clips come "
                f"before {flag}, or after --, as in {flag} person -- {entry}"
            )
    return frozenset[int]().union(*(_known(entry, class_names) for entry in entries))


def _class_ids(entry: str, class_names: Sequence[str]) -> list[int]:
    """The numbers of all classes with this name, or this number; none for an unknown one."""
    if entry in class_names:
        return [number for number, name in enumerate(class_names) if name == entry]
    is_number = entry.isdecimal() and int(entry) < len(class_names)
    return [int(entry)] if is_number else []


def _known(entry: str, class_names: Sequence[str]) -> list[int]:
    if found := _class_ids(entry, class_names):
        return found
    alike = difflib.get_close_matches(entry, class_names, 3)
    meant = f"did you mean {' or '.join(alike)}? This" if alike else "this"
    raise UsageError(f"class {entry!r} is unknown; {meant} model has: {', '.join(class_names)}")


def require_applicable(detect: DetectOptions, head: Head, *, in_tiles: bool = False) -> None:
    """Raise UsageError for options that this head has no use for, or for an unknown class."""
    if in_tiles and not head.needs_nms:
        raise UsageError(
            "--tile merges the boxes of overlapping tiles before NMS, and this model gives final "
            "boxes only: leave the option out, or take a model that needs NMS"
        )
    for flag, is_given in (
        ("--iou", detect.iou_threshold is not None),
        ("--agnostic-nms", detect.agnostic_nms),
    ):
        if is_given and not head.needs_nms:
            raise UsageError(
                f"{flag} is an option of NMS, which this model does not need: it gives one box for "
                "each object; leave the option out"
            )
    _threshold_table(detect, head.class_names)


def thresholds_of(
    detect: DetectOptions, class_names: tuple[str, ...], class_id: NDArray[np.int64]
) -> float | NDArray[np.float32]:
    """The minimum confidence of boxes of these classes; one for all if no class has its own."""
    if not detect.class_thresholds:
        return detect.confidence_threshold
    thresholds: NDArray[np.float32] = _threshold_table(detect, class_names)[class_id]
    return thresholds


@functools.lru_cache(maxsize=16)
def _threshold_table(detect: DetectOptions, class_names: tuple[str, ...]) -> NDArray[np.float32]:
    """By class id. Raises UsageError for a class that is unknown or given twice."""
    table = np.full(len(class_names), detect.confidence_threshold, np.float32)
    given: dict[int, str] = {}
    for entry, threshold in detect.class_thresholds:
        for number in _known(entry, class_names):
            if number in given:
                raise UsageError(f"--conf has class {entry!r} twice, also as {given[number]!r}")
            given[number], table[number] = entry, threshold
    return table
