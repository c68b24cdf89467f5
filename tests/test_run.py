"""The whole way of a frame, on clips made here and with real faults."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import process, read_detections, with_light, write_clip


def test_a_clip_becomes_an_annotated_clip_with_its_detections(
    tmp_path: Path, tiny_weights: Path
) -> None:
    lights = [(index % 16, index % 12) for index in range(40)]
    clip = write_clip(
        tmp_path / "clip.mp4", [with_light(cell) for cell in lights], options={"qp": "0"}
    )
    report = process(clip, tmp_path / "out", tiny_weights)

    assert report["output"]["num_frames"] == 40
    lines = read_detections(tmp_path / "out")
    assert [line["frame_index"] for line in lines] == list(range(40))
    found = [tuple(int(value / 8) for value in line["detections"][0]["xyxy"][:2]) for line in lines]
    assert found == lights
