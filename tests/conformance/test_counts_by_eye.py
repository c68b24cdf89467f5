"""What is counted in real footage is what is to be seen in it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from pipeline.cli.commands import main
from tests.conftest import SHARED

pytestmark = pytest.mark.conformance

CLIP = SHARED / "videos" / "car-detection.mp4"
LINE = "lines: [{name: middle, points: [[0, 0.5], [1, 0.5]], anchor: center}]"
SEEN = [("in", 79), ("out", 206), ("in", 211), ("out", 333)]
"""Direction of each car, and the frame in which its middle is on the line, by eye, at every second
frame: a white car upwards (78 below the line, 80 above), a light blue one downwards (204, 208), a
red one upwards (210, 212), a white one downwards (332, 334)."""
NEAR = 4
"""Frames by which the middle of the found boxes may be early or late: cars that are partly out of
the frame have shorter boxes."""


@pytest.mark.skipif(not CLIP.exists(), reason=f"needs {CLIP}")
def test_cars_are_counted_as_by_eye(tmp_path: Path) -> None:
    pytest.importorskip("trackers", reason="needs the extra 'track'")
    lines = tmp_path / "line.yaml"
    lines.write_text(LINE)
    words = ["process", str(CLIP), "--track", "--no-video", "--events", str(lines)]
    assert main([*words, "--output-dir", str(tmp_path / "out"), "--quiet"]) == 0
    with (tmp_path / "out" / "events.csv").open(encoding="utf-8", newline="") as table:
        found = [(row["direction"], int(row["frame_index"])) for row in csv.DictReader(table)]
    assert [direction for direction, _ in found] == [direction for direction, _ in SEEN]
    for (_, frame), (_, seen) in zip(found, SEEN, strict=True):
        assert abs(frame - seen) <= NEAR
