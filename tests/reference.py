"""Boxes that other programs found, in ../shared/reference."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import (
    SHARED,
    read_detections,
)

SURE = 0.35


Box = tuple[int, float, tuple[float, ...]]
"""Class, confidence, corners in pixels of the source."""


def reference(name: str) -> Any:
    return json.loads((SHARED / "reference" / f"{name}.json").read_text())


def referred(rows: list[list[float]]) -> list[Box]:
    return [(int(row[0]), row[1], tuple(row[2:])) for row in rows]


def found_in(output_dir: Path) -> dict[str, list[Box]]:
    return {
        str(line["frame_index"]): [
            (box["class_id"], box["confidence"], tuple(box["xyxy"])) for box in line["detections"]
        ]
        for line in read_detections(output_dir)
    }


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
    return width * height / (areas - width * height)


def pairs(ours: list[Box], theirs: list[Box]) -> Iterator[tuple[Box, Box]]:
    """Boxes of one frame that belong together: of one class, the best overlap first."""
    candidates = sorted(
        (
            (overlap(a[2], b[2]), i, j)
            for i, a in enumerate(ours)
            for j, b in enumerate(theirs)
            if a[0] == b[0]
        ),
        reverse=True,
    )
    taken: tuple[set[int], set[int]] = (set(), set())
    for similarity, i, j in candidates:
        if similarity >= 0.9 and i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            yield ours[i], theirs[j]


def assert_same_boxes(
    ours: Mapping[str, list[Box]],
    theirs: Mapping[str, list[Box]],
    *,
    least: int,
    confidence_within: float,
) -> None:
    """99% of the sure boxes, of which there are some, have a partner, both ways."""
    sure, partnered = [0, 0], [0, 0]
    for key in {*ours, *theirs}:
        mine, original = ours.get(key, []), theirs.get(key, [])
        matched = list(pairs(mine, original))
        for side, boxes in enumerate((mine, original)):
            sure[side] += sum(box[1] >= SURE for box in boxes)
            partnered[side] += sum(pair[side][1] >= SURE for pair in matched)
        for a, b in matched:
            assert a[1] == pytest.approx(b[1], abs=confidence_within)
    assert min(sure) >= least
    assert partnered[0] >= 0.99 * sure[0]
    assert partnered[1] >= 0.99 * sure[1]
