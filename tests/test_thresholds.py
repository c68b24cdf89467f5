"""Which boxes are kept: a threshold for each class, and NMS within classes or across them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.cli.commands import main
from pipeline.cli.parsers import parse_arguments
from pipeline.core.config import DetectOptions, RedactOptions
from pipeline.core.errors import UsageError
from pipeline.model.heads import (
    Candidates,
    covered_class_ids,
    require_applicable,
    select_class_ids,
    thresholds_of,
)
from pipeline.model.letterbox import letterbox
from pipeline.model.postprocess import detections_from
from tests.conftest import read_detections, with_light, write_clip
from tests.double_heads import DistancesHead

NAMES = ("person", "car", "dog")
LARGE = [0.0, 0.0, 10.0, 10.0]


def detected(
    scores: list[tuple[int, float]], head: DistancesHead | None = None, **asked: Any
) -> list[tuple[int, float]]:
    """Class and confidence of the boxes kept of some that all lie in one place."""
    count = len(scores)
    class_id = np.array([number for number, _ in scores])
    confidence = np.array([score for _, score in scores], np.float32)
    values = np.hstack((np.ones((count, 4)), np.eye(3)[class_id] * confidence[:, None]))
    candidates = Candidates(
        values.astype(np.float32), np.ones((count, 3), np.float32), class_id, confidence
    )
    found = detections_from(
        head or DistancesHead(class_names=NAMES, needs_nms=False),
        candidates,
        letterbox((64, 64), (64, 64)),
        DetectOptions(**asked),
    )
    return list(
        zip(
            found.class_id.tolist(),
            np.round(found.confidence.astype(float), 2).tolist(),
            strict=True,
        )
    )


def test_a_class_has_its_own_threshold_and_the_others_the_last_number() -> None:
    scores = [(0, 0.5), (0, 0.39), (1, 0.5), (1, 0.7), (2, 0.26), (2, 0.2)]
    words = ("person=0.4", "car=0.6", "0.25")
    assert detected(scores, confidence_threshold=words) == [(1, 0.7), (0, 0.5), (2, 0.26)]
    low = (("2", 0.1),)
    assert detected(scores, class_thresholds=low, confidence_threshold=0.6) == [
        *((1, 0.7), (2, 0.26), (2, 0.2)),
    ]


def test_without_classes_the_boxes_are_those_of_one_threshold() -> None:
    scores = [(0, 0.5), (1, 0.2), (2, 0.3)]
    assert detected(scores) == detected(scores, class_thresholds=(("car", 0.25),))


def test_agnostic_nms_drops_boxes_of_other_classes() -> None:
    head = DistancesHead(class_names=NAMES)
    scores = [(0, 0.5), (1, 0.7), (1, 0.6)]
    assert detected(scores, head) == [(1, 0.7), (0, 0.5)]
    assert detected(scores, head, agnostic_nms=True) == [(1, 0.7)]


def test_the_same_request_is_equal_however_it_is_written() -> None:
    by_words = DetectOptions(confidence_threshold=("car=0.6", "0.3", "person=0.4"))  # type: ignore[arg-type]
    by_pairs = DetectOptions(
        confidence_threshold=0.3, class_thresholds=(("person", 0.4), ("car", 0.6))
    )
    assert by_words == by_pairs
    assert by_words.least_confidence == 0.3
    assert by_words.down_to(0.5).class_thresholds == (("car", 0.5), ("person", 0.4))


@pytest.mark.parametrize(
    ("words", "conf", "videos"),
    [
        (["--conf", "0.4", "clip.mp4"], ["0.4"], ["clip.mp4"]),
        (["--conf", "person=0.4", "0.3", "a=b.mp4"], ["person=0.4", "0.3"], ["a=b.mp4"]),
        (["clip.mp4", "--conf", "0.3", "a b=.5", "--every", "2"], ["0.3", "a b=.5"], ["clip.mp4"]),
        (["--conf", "0.3", "--conf", "car=0.5", "--", "0.5"], ["0.3", "car=0.5"], ["0.5"]),
        (["--conf", "0.3", "--iou=0.5", "clip.mp4"], ["0.3"], ["clip.mp4"]),
        (["--conf", "0.3", "--highlights", "2", "clip.mp4"], ["0.3"], ["clip.mp4"]),
    ],
    ids=" ".join,
)
def test_clips_may_come_behind_thresholds(
    words: list[str], conf: list[str], videos: list[str]
) -> None:
    found = parse_arguments(["process", *words])
    assert (found.confidence_threshold, found.videos) == (conf, videos)


def test_a_misspelt_option_behind_thresholds_is_no_class(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse_arguments(["process", "clip.mp4", "--conf", "0.3", "--crff=20"])
    assert "did you mean --crf?" in capsys.readouterr().err


@pytest.mark.parametrize("option", [{"iou_threshold": 0.45}, {"agnostic_nms": True}], ids=str)
def test_options_of_nms_are_refused_for_a_model_without_it(option: dict[str, Any]) -> None:
    require_applicable(DetectOptions(), DistancesHead(needs_nms=False))
    require_applicable(DetectOptions(**option), DistancesHead())
    with pytest.raises(UsageError, match=r"^--(iou|agnostic-nms) .*leave the option out$"):
        require_applicable(DetectOptions(**option), DistancesHead(needs_nms=False))


def test_thresholds_are_by_class_id() -> None:
    detect = DetectOptions(class_thresholds=(("dog", 0.5),))
    found = thresholds_of(detect, NAMES, np.array([2, 0, 2]))
    assert np.asarray(found).tolist() == [0.5, 0.25, 0.5]


def test_a_name_stands_for_all_classes_that_have_it() -> None:
    names = ("face", "car", "face")
    assert covered_class_ids(RedactOptions(covered=("face",)), names) == {0, 2}
    assert select_class_ids(DetectOptions(classes=("face", "1")), names) == frozenset({0, 1, 2})
    detect = DetectOptions(class_thresholds=(("face", 0.5),))
    assert np.asarray(thresholds_of(detect, names, np.arange(3))).tolist() == [0.5, 0.25, 0.5]


@pytest.mark.parametrize("more", [(), ("--adaptive",)], ids=str)
def test_a_run_keeps_what_passes_the_threshold_of_its_class(
    more: tuple[str, ...], tmp_path: Path, tiny_weights: Path
) -> None:
    # So bright that the confidence is about 0.8.
    frames = [with_light((number, 3)).clip(0, 137) for number in range(4)]
    write_clip(tmp_path / "clip.mp4", frames)
    number = []
    for name, words in {
        "all": ["0.3"],
        "none": ["light=0.95", "0.3"],
        "other": ["shade=0.95", "0.3"],
    }.items():
        out = tmp_path / name
        command = ["process", str(tmp_path / "clip.mp4"), "--weights", str(tiny_weights), *more]
        assert main([*command, "--output-dir", str(out), "--quiet", "--conf", *words]) == 0
        number.append(sum(len(line["detections"]) for line in read_detections(out)))
        found = json.loads((out / "report.json").read_text())["configuration"]["detect"]
        assert len(found["class_thresholds"]) == len(words) - 1
    assert number[0] > 0
    assert number == [number[0], 0, number[0]]
