"""The detection lines of a whole clip -> lines that say what is covered in each frame."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from pipeline.core.cover_lines import CoverLine
from pipeline.run.redaction.covers import covers
from pipeline.run.redaction.fastest import fastest_sides
from pipeline.run.redaction.found import CoverRules, FoundBoxes
from pipeline.run.tracks.lines import Line, read_lines


def found_boxes(line: Line, class_ids: Collection[int]) -> FoundBoxes:
    """The boxes of these classes in a line, weak ones too."""
    boxes = line.boxes.where(np.isin(line.boxes.class_id, list(class_ids)))
    return FoundBoxes(line.pts_seconds, boxes.xyxy, boxes.class_id, not line.is_interpolated)


def write_covers(
    detections: Path,
    weak: Path,
    target: Path,
    class_ids: Collection[int],
    rules: CoverRules,
    on_frame: Callable[[int], object] = lambda _: None,
) -> None:
    """Write what is covered in each frame of a clip.

    detections, weak: its lines, and those of the boxes of less confidence. class_ids: of what is
    covered. on_frame: called with the index of each frame. Raises OSError, and InputError for a
    damaged file.
    """
    waiting: deque[tuple[int, float]] = deque()
    lines = partial(read_lines, detections, weak, on_frame)

    def found() -> Iterator[FoundBoxes]:
        for line in lines():
            waiting.append((int(line.record["frame_index"]), line.pts_seconds))
            yield found_boxes(line, class_ids)

    fastest = fastest_sides(found_boxes(line, class_ids) for line in lines())
    rules = replace(rules, fastest_sides=fastest)
    with target.open("w", encoding="utf-8") as out:
        for covered in covers(found(), rules):
            out.write(CoverLine(*waiting.popleft(), covered).to_json() + "\n")
