"""The detection lines of a whole clip -> the same lines, with the ids of tracks."""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.boxes import NO_TRACK, Detections
from pipeline.core.detection_lines import DetectionLine
from pipeline.core.errors import InputError
from pipeline.run.tracks.between import Between
from pipeline.run.tracks.tracker import Tracker


@dataclass(frozen=True, slots=True)
class Line:
    """A line as it stands in the file, and its boxes: num_strong of them, and weak ones behind."""

    record: dict[str, Any]
    boxes: Detections
    num_strong: int

    @property
    def is_interpolated(self) -> bool:
        return bool(self.record.get("interpolated"))

    @property
    def pts_seconds(self) -> float:
        return float(self.record["pts_seconds"])

    @property
    def strong(self) -> Detections:
        return self.boxes.where(np.arange(len(self.boxes)) < self.num_strong)

    def to_json(self, ids: Iterable[int]) -> str:
        """The line with an id for each of its boxes; nothing else in it changes."""
        for entry, track_id in zip(self.record["detections"], ids, strict=True):
            entry["track_id"] = None if track_id == NO_TRACK else track_id
        return json.dumps(self.record) + "\n"


def write_tracked(
    detections: Path,
    weak: Path | None,
    target: Path,
    tracker: Tracker,
    on_frame: Callable[[int], object] = lambda _: None,
) -> int:
    """Write the detection lines of a clip with the ids of tracks; returns the number of tracks.

    weak: the lines of the boxes that only a tracker needs; None where they are missing. target:
    another file. on_frame: called with the index of each frame. Raises OSError, and InputError for
    a damaged file.
    """
    seen: set[int] = set()
    with target.open("w", encoding="utf-8") as out:
        for line, ids in _tracked(read_lines(detections, weak, on_frame), tracker):
            strong_ids = ids[: line.num_strong].tolist()
            seen.update(strong_ids)
            out.write(line.to_json(strong_ids))
    return len(seen - {NO_TRACK})


def _tracked(lines: Iterable[Line], tracker: Tracker) -> Iterator[tuple[Line, NDArray[np.int64]]]:
    """Each line with the ids of its boxes, or of those of them that are not weak.

    Holds back no more lines than lie between two inferred frames.
    """
    before: tuple[float, Detections] | None = None
    waiting: list[Line] = []
    for line in lines:
        if line.is_interpolated and before is not None:
            waiting.append(line)
            continue
        ids = tracker.update(line.boxes, line.pts_seconds)
        inferred = (line.pts_seconds, replace(line.boxes, track_id=ids))
        if before is not None and waiting:
            yield from _carried(before, waiting, inferred)
        before, waiting = inferred, []
        yield line, ids
    if before is not None and waiting:  # They keep the boxes of the last inferred frame.
        yield from _carried(before, waiting, before)


def _carried(
    before: tuple[float, Detections], waiting: list[Line], after: tuple[float, Detections]
) -> Iterator[tuple[Line, NDArray[np.int64]]]:
    between = Between(before[1], after[1])
    duration_seconds = (after[0] - before[0]) or 1.0
    for line in waiting:
        fraction = (line.pts_seconds - before[0]) / duration_seconds
        yield line, between.ids(line.strong, fraction)


def read_lines(
    detections: Path, weak: Path | None, on_frame: Callable[[int], object]
) -> Iterator[Line]:
    with contextlib.ExitStack() as stack:
        lines = stack.enter_context(detections.open(encoding="utf-8"))
        weak_lines = stack.enter_context(weak.open(encoding="utf-8")) if weak is not None else ()
        for index, text in enumerate(lines):
            on_frame(index)
            boxes, record = _parsed(detections, index, text)
            num_strong = len(boxes)
            if weak is not None:
                weak_text = next(iter(weak_lines), "")
                weaker, weak_record = _parsed(weak, index, weak_text)
                if weak_record["pts_seconds"] != record["pts_seconds"]:
                    raise InputError(
                        f"{weak}: line {index + 1} is of another frame than that of "
                        f"{detections.name}: both must be of one run"
                    )
                boxes = boxes.followed_by(weaker)
            yield Line(record, boxes, num_strong)


def _parsed(path: Path, index: int, text: str) -> tuple[Detections, dict[str, Any]]:
    try:
        record = json.loads(text)
        boxes = DetectionLine.from_record(record).detections
        if not (np.isfinite(boxes.xyxy).all() and np.isfinite(boxes.confidence).all()):
            raise ValueError("a number is not finite")
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(f"{path}: line {index + 1} is missing or damaged ({error!r})") from error
    return replace(boxes, track_id=None), record


def frame_rate_of(seconds: Iterable[float]) -> float:
    """Frames per second, of the times of frames in order; 30 where they say nothing."""
    steps = [b - a for a, b in itertools.pairwise(seconds) if b > a]
    return 1.0 / float(np.median(steps)) if steps else 30.0
