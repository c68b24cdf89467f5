"""Boxes against the truth: what counts as found, and what as right."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.synthetic.judge import Judgement, judge

Box = tuple[int, float, list[float]]
"""Class, confidence, corners."""

THING: Box = (1, 1.0, [10.0, 10.0, 30.0, 50.0])
OTHER: Box = (2, 1.0, [60.0, 10.0, 80.0, 50.0])
HALF: Box = (1, 0.9, [10.0, 10.0, 30.0, 30.0])
LESS: Box = (1, 0.9, [10.0, 10.0, 30.0, 29.0])


def write(path: Path, frames: list[list[Box]]) -> Path:
    lines = [
        {
            "frame_index": index,
            "pts_seconds": index / 25,
            "detections": [
                {"class_id": class_id, "confidence": confidence, "xyxy": xyxy}
                for class_id, confidence, xyxy in boxes
            ],
        }
        for index, boxes in enumerate(frames)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def judged(
    folder: Path,
    found: list[list[Box]],
    truth: list[list[Box]],
    class_ids: frozenset[int] | None = None,
) -> Judgement:
    return judge(write(folder / "found", found), write(folder / "truth", truth), class_ids)


def test_what_is_found_exactly_is_perfect(tmp_path: Path) -> None:
    result = judged(tmp_path, [[THING, OTHER], []], [[OTHER, THING], []])
    assert result == Judgement(num_things=2, num_boxes=2, num_pairs=2, mean_iou=1.0)
    assert (result.recall, result.precision) == (1.0, 1.0)


def test_an_overlap_of_one_half_is_enough_and_less_is_not(tmp_path: Path) -> None:
    half = judged(tmp_path, [[HALF]], [[THING]])
    assert half.num_pairs == 1
    assert half.mean_iou == pytest.approx(0.5)
    assert judged(tmp_path, [[LESS]], [[THING]]) == Judgement(1, 1, 0, None)


def test_a_thing_of_another_class_or_frame_is_not_found(tmp_path: Path) -> None:
    assert judged(tmp_path, [[(2, 0.9, THING[2])]], [[THING]]).num_pairs == 0
    assert judged(tmp_path, [[THING], []], [[], [THING]]).num_pairs == 0


def test_a_thing_counts_for_one_box_only(tmp_path: Path) -> None:
    result = judged(tmp_path, [[THING, HALF]], [[THING]])
    assert result == Judgement(num_things=1, num_boxes=2, num_pairs=1, mean_iou=1.0)
    assert (result.recall, result.precision) == (1.0, 0.5)


def test_things_that_were_not_looked_for_do_not_count(tmp_path: Path) -> None:
    result = judged(tmp_path, [[THING]], [[THING, OTHER]], frozenset({1}))
    assert (result.recall, result.precision) == (1.0, 1.0)


def test_where_there_is_nothing_there_is_no_share(tmp_path: Path) -> None:
    result = judged(tmp_path, [[]], [[]])
    assert (result.recall, result.precision, result.mean_iou) == (None, None, None)


def test_files_of_different_length_do_not_belong_together(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="argument 2"):
        judged(tmp_path, [[THING]], [[THING], [THING]])
