"""Frames made up from a seed: always the same, and treated like those of a file."""

from __future__ import annotations

import dataclasses
import json
import re
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.cli.commands import main
from pipeline.core.config import DetectOptions, ProcessConfig, SyntheticOptions
from pipeline.core.errors import InputError
from pipeline.media.frame import Frame, plane_rows
from pipeline.run.process import process_video
from pipeline.synthetic.source import SyntheticSource
from pipeline.synthetic.truth import truth_records
from tests.conftest import (
    DEMO,
    needs_demo,
    process,
    read_detections,
    video_times,
    with_light,
    write_clip,
)


def frames_of(options: SyntheticOptions) -> list[Frame]:
    return list(SyntheticSource(options))


def content(frame: Frame) -> bytes:
    """The pixels, without the padding of the rows."""
    return b"".join(plane_rows(plane)[:, : plane.width].tobytes() for plane in frame.image.planes)


def contents(options: SyntheticOptions) -> list[bytes]:
    return [content(frame) for frame in frames_of(options)]


def write_picture(path: Path, picture: NDArray[np.uint8]) -> Path:
    assert cv2.imwrite(str(path), picture)
    return path


@pytest.mark.parametrize("size_wh", [(128, 96), (127, 95), (640, 480), (96, 128)])
def test_the_same_seed_gives_the_same_frames(size_wh: tuple[int, int]) -> None:
    options = SyntheticOptions(num_frames=8, size_wh=size_wh, seed=3)
    assert contents(options) == contents(options)


def test_a_source_can_be_read_again_from_its_start() -> None:
    source = SyntheticSource(SyntheticOptions(num_frames=5, size_wh=(128, 96)))
    assert [content(frame) for frame in source] == [content(frame) for frame in source]


def test_another_seed_gives_another_scene() -> None:
    one, other = (
        contents(SyntheticOptions(num_frames=3, size_wh=(128, 96), seed=seed)) for seed in (0, 1)
    )
    assert set(one).isdisjoint(other)


def test_a_scene_moves() -> None:
    frames = contents(SyntheticOptions(num_frames=30, size_wh=(320, 240)))
    assert len(set(frames)) == 30


def test_a_longer_scene_begins_like_a_shorter_one() -> None:
    short, long = (
        contents(SyntheticOptions(num_frames=count, size_wh=(128, 96))) for count in (5, 10)
    )
    assert long[:5] == short


@pytest.mark.parametrize("rate", [Fraction(25), Fraction(30000, 1001), Fraction(1, 2)])
def test_frames_follow_each_other_at_the_asked_rate(rate: Fraction) -> None:
    source = SyntheticSource(SyntheticOptions(num_frames=6, size_wh=(64, 48), frame_rate=rate))
    frames = list(source)
    assert [frame.index for frame in frames] == list(range(6))
    assert [frame.pts * frame.time_base for frame in frames] == [index / rate for index in range(6)]
    assert {frame.duration * frame.time_base for frame in frames} == {1 / rate}
    assert source.info.frame_rate == rate
    assert source.info.num_frames_header == 6
    assert source.info.duration_seconds == pytest.approx(float(6 / rate))


@pytest.mark.parametrize("size_wh", [(16, 16), (17, 19), (127, 95), (641, 359), (33, 480)])
def test_frames_have_the_asked_size(size_wh: tuple[int, int]) -> None:
    source = SyntheticSource(SyntheticOptions(num_frames=2, size_wh=size_wh))
    assert [(frame.image.width, frame.image.height) for frame in source] == [size_wh] * 2
    assert source.info.size_wh == size_wh
    assert {frame.image.format.name for frame in source} == {"yuv420p"}


def test_a_long_scene_stays_within_its_size() -> None:
    frames = frames_of(SyntheticOptions(num_frames=600, size_wh=(32, 24)))
    assert len(frames) == 600


def test_a_picture_is_repeated_unchanged(tmp_path: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    path = write_picture(tmp_path / "picture.png", picture)
    frames = frames_of(SyntheticOptions(num_frames=4, size_wh=(64, 48), image=path))
    assert len({content(frame) for frame in frames}) == 1
    assert len(frames) == 4


def test_a_picture_keeps_its_colours(tmp_path: Path) -> None:
    picture = np.full((48, 64, 3), (20, 90, 200), np.uint8)
    path = write_picture(tmp_path / "picture.png", picture)
    [frame] = frames_of(SyntheticOptions(num_frames=1, size_wh=(64, 48), image=path))
    seen = frame.image.to_ndarray(format="bgr24").reshape(-1, 3).mean(axis=0)
    assert seen == pytest.approx([20, 90, 200], abs=3)


def test_a_picture_is_scaled_to_the_asked_size(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "picture.png", np.full((48, 64, 3), 90, np.uint8))
    [frame] = frames_of(SyntheticOptions(num_frames=1, size_wh=(127, 95), image=path))
    assert (frame.image.width, frame.image.height) == (127, 95)


@pytest.mark.parametrize("content", [b"", b"not a picture", None])
def test_a_picture_that_cannot_be_read_is_refused_by_name(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "picture.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=r"picture that can be read|no such file") as caught:
        SyntheticSource(SyntheticOptions(image=path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("size_wh", [(128, 96), (127, 95)])
def test_a_whole_run_takes_a_made_up_clip(
    tmp_path: Path, tiny_weights: Path, size_wh: tuple[int, int]
) -> None:
    source = SyntheticOptions(num_frames=20, size_wh=size_wh, frame_rate=Fraction(30000, 1001))
    report = process_video(
        ProcessConfig(source=source, output_dir=tmp_path / "out", weights=tiny_weights)
    )
    times = [time for time, _ in video_times(tmp_path / "out" / "annotated.mp4")]
    assert times == [Fraction(1001 * index, 30000) for index in range(20)]
    assert report["output"]["num_frames"] == 20
    assert report["source"]["name"] == "synthetic"
    assert json.loads((tmp_path / "out" / "report.json").read_text())["output"]["num_frames"] == 20


def test_a_whole_run_finds_what_a_repeated_picture_shows(
    tmp_path: Path, tiny_weights: Path
) -> None:
    path = write_picture(tmp_path / "picture.png", with_light((5, 4)))
    source = SyntheticOptions(num_frames=5, size_wh=(128, 96), image=path)
    process_video(ProcessConfig(source=source, output_dir=tmp_path / "out", weights=tiny_weights))
    lines = read_detections(tmp_path / "out")
    assert [line["detections"][0]["xyxy"] for line in lines] == [[40.0, 32.0, 48.0, 40.0]] * 5


@pytest.mark.parametrize("num_frames", [None, 5])
def test_a_run_on_the_scene_writes_its_truth_frame_by_frame(
    tmp_path: Path, tiny_weights: Path, num_frames: int | None
) -> None:
    scene = SyntheticOptions(num_frames=9, size_wh=(128, 96), frame_rate=Fraction(24000, 1001))
    report = process(scene, tmp_path / "out", tiny_weights, num_frames=num_frames)
    lines = (tmp_path / "out" / "truth.jsonl").read_text(encoding="utf-8").splitlines()
    records = list(truth_records(scene))[:num_frames]
    assert [json.loads(line) for line in lines] == records
    times = [line["pts_seconds"] for line in read_detections(tmp_path / "out")]
    assert [record["pts_seconds"] for record in records] == times
    assert report["truth"] is None  # This model knows other things.


def test_what_has_no_truth_leaves_none_behind(tmp_path: Path, tiny_weights: Path) -> None:
    path = write_picture(tmp_path / "picture.png", with_light((5, 4)))
    scene = SyntheticOptions(num_frames=3, size_wh=(128, 96))
    picture = dataclasses.replace(scene, image=path)
    clip = write_clip(tmp_path / "clip.mp4", [with_light((5, 4))])
    for source in (picture, clip):
        process(scene, tmp_path / "out", tiny_weights, overwrite=True)
        assert (tmp_path / "out" / "truth.jsonl").is_file()
        report = process(source, tmp_path / "out", tiny_weights, overwrite=True)
        assert report["truth"] is None
        assert not (tmp_path / "out" / "truth.jsonl").exists()


@needs_demo
def test_a_model_that_knows_the_scene_is_judged(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["process", "--frames", "20", "--output-dir", str(out)]) == 0
    truth = json.loads((out / "report.json").read_text())["truth"]
    assert truth["num_things"] == sum(
        len(record["detections"]) for record in truth_records(SyntheticOptions(num_frames=20))
    )
    assert truth["recall"] > 0.8
    assert truth["precision"] > 0.8
    assert truth["mean_iou"] > 0.8
    assert re.search(
        r"\ntruth: \d+\.\d% of \d+ objects found, \d+\.\d% of the boxes right; mean IoU 0\.\d{3}\n",
        capsys.readouterr().out,
    )
    assert "Accuracy on the synthetic scene" in (out / "report.html").read_text(encoding="utf-8")


@needs_demo
def test_only_the_classes_that_were_looked_for_are_judged(tmp_path: Path) -> None:
    scene = SyntheticOptions(num_frames=20)
    detect = DetectOptions(classes=("tree", "house"))
    report = process(scene, tmp_path / "out", DEMO, detect=detect)
    wanted = [
        thing
        for record in truth_records(scene)
        for thing in record["detections"]
        if thing["class_name"] in ("tree", "house")
    ]
    assert report["truth"]["num_things"] == len(wanted) > 0
    assert report["truth"]["num_boxes"] == report["detections"]["total"]
