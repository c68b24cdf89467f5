"""The libraries of other tools find every box of an export where it is."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline import read_detections
from pipeline.cli.commands import main
from pipeline.run.exports.formats import EXPORT_FORMATS
from tests.conftest import DEMO, needs_demo, process

pytestmark = [pytest.mark.conformance, needs_demo]

READER = Path(__file__).with_name("foreign_readers.py")
SAMPLE = Path(__file__).parents[2] / "samples" / "clip.mp4"
NEAR = 0.011
"""A hundredth of a pixel, and the rounding of float32 in the readers."""


@pytest.fixture
def readers(request: pytest.FixtureRequest) -> str:
    python = request.config.getoption("--readers")
    if not python:
        pytest.skip("needs --readers PYTHON, an environment with the readers: see CONTRIBUTING.md")
    return str(python)


def test_every_reader_finds_every_box(readers: str, tmp_path: Path) -> None:
    process(SAMPLE, tmp_path / "out", DEMO, num_frames=40)
    words = ["export", str(tmp_path / "out"), "--to", *EXPORT_FORMATS, "--images", str(SAMPLE)]
    assert main(words) == 0
    command = [readers, str(READER), str(tmp_path / "out" / "export"), SAMPLE.stem]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    [line] = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")]
    expected: list[list[Any]] = sorted(
        [frame.frame_index, box.class_name, *box.xyxy]
        for frame in read_detections(tmp_path / "out" / "detections.jsonl")
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
