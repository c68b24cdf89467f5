"""INT8 is checked on every clip: boxes on some frames of it are compared with those in float."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.cli.summary import run_summary
from pipeline.core.config import AutoOptions
from tests.conftest import gray, process, with_light, write_clip

INT8 = AutoOptions(precision="int8")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A light that moves, in 200 frames."""
    images = [with_light((i % 16, (i // 16) % 12)) for i in range(200)]
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", images)


def test_a_run_in_int8_says_how_many_boxes_are_as_in_float(
    clip: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    report = process(clip, tmp_path / "out", tiny_weights, imgsz=96, infer=INT8)
    audit = report["precision_audit"]
    assert audit["num_frames"] == 16
    assert [found["iou"] for found in audit["by_iou"]] == [0.5, 0.75]
    for found in audit["by_iou"]:
        assert found["float"]["num_boxes"] >= 16
        low, high = found["interval_95"]
        assert low <= found["share"] <= high
    lines = "\n".join(run_summary(report, "out"))
    assert "INT8 on 16 frames" in lines
    assert "INT8 compared with float" in (tmp_path / "out" / "report.html").read_text()


def test_int8_that_differs_from_float_is_warned_of_with_the_way_out(
    clip: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "dark"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.full((96, 128, 3), 3, np.uint8))
    options = {"imgsz": 96, "infer": INT8, "calibration": folder}
    report = process(clip, tmp_path / "out", tiny_weights, **options)
    assert report["precision_audit"]["verdict"] == "below"
    (warning,) = [text for text in report["output"]["notes"] if "--least-agreement 0.97" in text]
    assert "--calibration FOLDER" in warning


def test_of_a_short_clip_few_frames_are_compared(tiny_weights: Path, tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "short.mp4", [gray(20)] * 20)
    report = process(clip, tmp_path / "out", tiny_weights, imgsz=96, infer=INT8)
    assert report["precision_audit"]["num_frames"] == 3
    assert report["precision_audit"]["verdict"] == "undecided"
    page = (tmp_path / "out" / "report.html").read_text()
    assert "too few to compare" in page
    assert "too short to decide whether 0.97" in page


def test_float_and_pictures_have_no_such_comparison(tiny_weights: Path, tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), with_light((3, 3)))
    in_int8 = process(picture, tmp_path / "a", tiny_weights, imgsz=96, infer=INT8)
    in_float = process(picture, tmp_path / "b", tiny_weights, imgsz=96)
    assert in_int8["precision_audit"] is None
    assert in_float["precision_audit"] is None


def test_of_the_first_frames_of_a_clip_only_these_are_compared(
    tiny_weights: Path, tmp_path: Path
) -> None:
    images = [with_light((3, 3))] * 40 + [gray(20)] * 160
    clip = write_clip(tmp_path / "clip.mp4", images, options={"g": "10"})
    options = {"imgsz": 96, "infer": INT8, "num_frames": 40}
    audit = process(clip, tmp_path / "out", tiny_weights, **options)["precision_audit"]
    assert audit["num_frames"] == 5
    assert audit["by_iou"][0]["float"]["num_boxes"] == 5
