"""The samples that come with the project: made from the scene, and found by the demo model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from make_samples import CLIP, CLIP_NAME, EXPECTED_NAME, FLOAT32, tones, write_clip

from pipeline.core.agreement import agreement
from pipeline.core.boxes import Detections
from pipeline.synthetic.judge import judge
from pipeline.synthetic.scene import Scene
from pipeline.synthetic.truth import truth_records
from tests.conftest import DEMO, needs_demo, process, read_detections, video_times

CLIP_PATH, EXPECTED = DEMO.with_name(CLIP_NAME), DEMO.with_name(EXPECTED_NAME)

needs_expected = pytest.mark.skipif(
    not EXPECTED.is_file(), reason=f"needs samples/{EXPECTED_NAME}: run `make samples`"
)


def detections_of(line: dict[str, Any]) -> Detections:
    boxes = line["detections"]
    return Detections(
        np.array([box["xyxy"] for box in boxes], np.float32).reshape(-1, 4),
        np.array([box["confidence"] for box in boxes], np.float32),
        np.array([box["class_id"] for box in boxes], np.int64),
    )


def test_the_clip_is_small_and_has_a_picture_and_a_sound_of_equal_length() -> None:
    assert CLIP_PATH.stat().st_size < 1_000_000
    with av.open(str(CLIP_PATH)) as container:
        [picture], [sound] = container.streams.video, container.streams.audio
        assert (picture.codec_context.name, sound.codec_context.name) == ("h264", "aac")
        assert (picture.width, picture.height) == CLIP.size_wh
        assert picture.average_rate == CLIP.frame_rate
        assert picture.frames == CLIP.num_frames
        assert picture.duration is not None
        assert sound.duration is not None
        lengths = [float(s.duration * s.time_base) for s in (picture, sound)]
    assert lengths == pytest.approx([5.0, 5.0], abs=0.05)


def test_the_clip_shows_the_scene() -> None:
    scene = Scene(CLIP.size_wh, CLIP.seed)
    with av.open(str(CLIP_PATH)) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index % 30 == 0:
                shown = frame.to_ndarray(format="bgr24")
                assert cv2.PSNR(shown, scene.draw(index)) > 26


def test_the_clip_can_be_made_again_to_the_byte(tmp_path: Path) -> None:
    few = type(CLIP)(num_frames=10, size_wh=(160, 96), seed=CLIP.seed)
    first, second = tmp_path / "first.mp4", tmp_path / "second.mp4"
    write_clip(first, few)
    write_clip(second, few)
    assert first.read_bytes() == second.read_bytes()


def test_a_tone_comes_from_the_side_where_the_things_are() -> None:
    sound = tones(CLIP)
    assert sound.shape == (2, 5 * 48_000)
    assert 0.05 < np.abs(sound).max() < 1
    per_frame = sound.reshape(2, CLIP.num_frames, -1).std(axis=2)
    right, place = per_frame[1] / per_frame.sum(axis=0), []
    for record in truth_records(CLIP):
        boxes = np.array([thing["xyxy"] for thing in record["detections"]])
        area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
        place.append(float(((boxes[:, 0] + boxes[:, 2]) / 2 * area).sum() / area.sum()))
    assert np.corrcoef(right, place)[0, 1] > 0.7


@needs_demo
@needs_expected
def test_the_demo_model_finds_in_the_clip_what_is_expected(tmp_path: Path) -> None:
    num_frames = 60  # The check of an installation takes all of them.
    process(CLIP_PATH, tmp_path, DEMO, infer=FLOAT32, num_frames=num_frames)
    found = [detections_of(line) for line in read_detections(tmp_path)]
    lines = EXPECTED.read_text(encoding="utf-8").splitlines()
    assert len(lines) == CLIP.num_frames
    result = agreement(found, [detections_of(json.loads(line)) for line in lines[:num_frames]])
    assert result.num_boxes > 200
    assert result.same, result
    assert video_times(tmp_path / "annotated.mp4") == video_times(CLIP_PATH)[:num_frames]


@needs_expected
def test_what_is_expected_is_what_is_to_be_seen(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    truth.write_text("".join(json.dumps(record) + "\n" for record in truth_records(CLIP)))
    judged = judge(EXPECTED, truth)
    assert judged.recall is not None
    assert judged.precision is not None
    assert judged.recall > 0.9
    assert judged.precision > 0.8
