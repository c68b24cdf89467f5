"""The libraries of other tools find every box of an export where it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import read_detections
from pipeline.cli.commands import main
from pipeline.core.config import TRACKERS, DetectOptions, SyntheticOptions
from pipeline.run.exports.formats import EXPORT_FORMATS
from pipeline.synthetic.sprites import CLASS_NAMES
from tests.conftest import DEMO, needs_demo, process

pytestmark = [pytest.mark.conformance, needs_demo]

READER = Path(__file__).with_name("foreign_readers.py")
FIFTYONE_READER = Path(__file__).with_name("fiftyone_reader.py")
ULTRALYTICS_READER = Path(__file__).with_name("ultralytics_reader.py")
SAMPLE = Path(__file__).parents[2] / "samples" / "clip.mp4"
NEAR = 0.011
"""A hundredth of a pixel, and the rounding of float32 in the readers."""


@pytest.fixture
def readers(request: pytest.FixtureRequest) -> str:
    python = request.config.getoption("--readers")
    if not python:
        pytest.skip("needs --readers PYTHON, an environment with the readers: see CONTRIBUTING.md")
    return str(python)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of 40 frames, with all exports."""
    out = tmp_path_factory.mktemp("result") / "out"
    process(SAMPLE, out, DEMO, num_frames=40)
    words = ["export", str(out), "--to", *EXPORT_FORMATS, "--images", str(SAMPLE)]
    assert main(words) == 0
    return out


def require_all_boxes(command: list[str], result: Path, folder: Path) -> None:
    """Run a reader, which may write into a folder, and compare what it found with the result."""
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=folder,
        env={**os.environ, "YOLO_CONFIG_DIR": str(folder)},
    )
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    expected: list[list[Any]] = sorted(
        [frame.frame_index, box.class_name, *box.xyxy]
        for frame in read_detections(result / "detections.jsonl")
        for box in frame.boxes
    )
    assert expected
    found = json.loads(line.removeprefix("FOUND "))
    for reader, boxes in found.items():
        boxes.sort()
        assert [box[:2] for box in boxes] == [box[:2] for box in expected], reader
        np.testing.assert_allclose(
            [box[2:] for box in boxes],
            [box[2:] for box in expected],
            rtol=0,
            atol=NEAR,
            err_msg=reader,
        )


def test_every_reader_finds_every_box(readers: str, result: Path, tmp_path: Path) -> None:
    command = [readers, str(READER), str(result / "export"), SAMPLE.stem]
    require_all_boxes(command, result, tmp_path)


def test_ultralytics_accepts_the_data_set_from_any_folder(result: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ULTRALYTICS_READER), str(result / "export" / "yolo")]
    require_all_boxes(command, result, tmp_path)


def test_trackeval_reads_tracks_and_ground_truth(readers: str, tmp_path: Path) -> None:
    """The first class of a model has the number of its pedestrians, whatever it is called."""
    scene, out = SyntheticOptions(num_frames=60, seed=8), tmp_path / "synthetic"
    process(
        scene,
        out,
        DEMO,
        video=False,
        track=TRACKERS[0],
        detect=DetectOptions(classes=(CLASS_NAMES[0],)),
    )
    for name in ("detections", "truth"):
        words = ["export", str(out / f"{name}.jsonl"), "--to", "mot"]
        assert main([*words, "--output-dir", str(tmp_path / name)]) == 0
    [folder] = (tmp_path / "truth" / "mot").iterdir()
    command = [readers, str(READER.with_name("read_mot.py"))]
    command += [str(tmp_path / name / "mot") for name in ("truth", "detections")]
    done = subprocess.run(
        [*command, folder.name], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    found = json.loads(line.removeprefix("FOUND "))
    boxes = {
        name: [
            box.track_id
            for frame in read_detections(out / f"{name}.jsonl")
            for box in frame.boxes
            if box.class_name == CLASS_NAMES[0] and box.track_id is not None
        ]
        for name in ("detections", "truth")
    }
    assert found["num_timesteps"] == 60
    assert found["num_gt_dets"] == len(boxes["truth"])
    assert found["num_gt_ids"] == len(set(boxes["truth"]))
    assert found["num_tracker_dets"] == len(boxes["detections"])
    assert found["num_tracker_ids"] == len(set(boxes["detections"])) > 0
    assert found["HOTA"] > 0.4


def test_fiftyone_imports_every_box(
    request: pytest.FixtureRequest, result: Path, tmp_path: Path
) -> None:
    python = request.config.getoption("--fiftyone")
    if not python:
        pytest.skip("needs --fiftyone PYTHON, an environment with fiftyone; no database is needed")
    path = result / "export" / "coco" / "annotations" / "instances_default.json"
    require_all_boxes([str(python), str(FIFTYONE_READER), str(path)], result, tmp_path)
