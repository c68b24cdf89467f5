"""A folder of pictures with a frame rate is one clip."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.commands import main
from pipeline.core.config import DetectOptions, InferOptions, ProcessConfig
from pipeline.core.errors import InputError, Interrupted, SourceChanged
from pipeline.core.picture_sequence import PictureSequence
from pipeline.core.progress import Progress
from pipeline.run.process import process_video
from tests.conftest import gray, process, read_detections, video_times, with_light
from tests.recordings import assert_numbered, jpeg_with_orientation, numbered

RATE = Fraction(24000, 1001)
F32 = InferOptions(precision="f32")
NOTHING = DetectOptions(classes=("shade",))
"""A class that is never found: no box changes a pixel."""


def write_pictures(folder: Path, count: int, name: str = "shot_{}.png") -> Path:
    """Numbered without leading zeros."""
    folder.mkdir()
    for index in range(count):
        cv2.imwrite(str(folder / name.format(index)), numbered(index)[..., ::-1])
    return folder


def sequence(folder: Path) -> PictureSequence:
    return PictureSequence(folder=folder, frame_rate=RATE)


def test_pictures_become_the_frames_of_one_clip_in_the_order_of_their_numbers(
    tmp_path: Path, tiny_weights: Path
) -> None:
    folder, out = write_pictures(tmp_path / "shots", 12), tmp_path / "out"
    (folder / "notes.txt").write_text("no picture")
    words = ["process", str(folder), "--frame-rate", str(RATE), "--output-dir", str(out)]
    assert main([*words, "--weights", str(tiny_weights), "--precision", "f32", "--quiet"]) == 0
    assert_numbered(out, 12)
    times = video_times(out / "annotated.mp4")
    assert [begin for begin, _ in times] == [index / RATE for index in range(12)]
    assert {duration for _, duration in times} == {1 / RATE}
    line = read_detections(out)[-1]
    assert (line["pts"], line["pts_seconds"]) == (11, pytest.approx(float(11 / RATE)))


def test_without_a_frame_rate_each_picture_is_processed_by_itself(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_pictures(tmp_path / "shots", 2)
    options = ["--output-dir", "out", "--weights", str(tiny_weights), "--quiet"]
    assert main(["process", "shots", *options]) == 0
    assert len(list((tmp_path / "out").rglob("annotated.png"))) == 2


def test_a_picture_of_another_size_is_named(tmp_path: Path, tiny_weights: Path) -> None:
    folder = write_pictures(tmp_path / "shots", 3)
    cv2.imwrite(str(folder / "shot_2.png"), gray(20, (64, 48)))
    with pytest.raises(InputError) as caught:
        process(sequence(folder), tmp_path / "out", tiny_weights)
    assert "shot_2.png: is 64x48, and shot_0.png" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, tiny_weights: Path) -> None:
    folder = write_pictures(tmp_path / "shots", 3)
    (folder / "shot_1.png").write_bytes(b"no picture at all")
    with pytest.raises(InputError, match=r"shot_1\.png: not a video|shot_1\.png: not a picture"):
        process(sequence(folder), tmp_path / "out", tiny_weights)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_photographs_are_upright(tmp_path: Path, tiny_weights: Path, orientation: int) -> None:
    folder, out = tmp_path / "held", tmp_path / "out"
    folder.mkdir()
    for number in (1, 2):
        path = jpeg_with_orientation(folder / f"{number}.jpg", orientation)
    upright = cv2.imread(str(path))
    assert upright is not None
    process(sequence(folder), out, tiny_weights, detect=NOTHING)
    ok, shown = cv2.VideoCapture(str(out / "annotated.mp4")).read()
    assert ok
    assert shown.shape == upright.shape
    assert np.abs(shown.astype(int) - upright).mean() < 4


def test_pictures_of_several_kinds_have_the_colours_that_they_have_alone(
    tmp_path: Path, tiny_weights: Path
) -> None:
    folder, out = tmp_path / "mixed", tmp_path / "out"
    folder.mkdir()
    pixels = np.full((48, 64, 3), (200, 90, 30), np.uint8)
    cv2.imwrite(str(folder / "1.jpg"), pixels)
    cv2.imwrite(str(folder / "2.png"), pixels)
    cv2.imwrite(str(folder / "3.png"), np.dstack((pixels, np.full((48, 64), 255, np.uint8))))
    cv2.imwrite(str(folder / "4.bmp"), pixels[..., 1])
    process(sequence(folder), out, tiny_weights, detect=NOTHING)
    capture = cv2.VideoCapture(str(out / "annotated.mp4"))
    for expected in (pixels, pixels, pixels, np.full_like(pixels, 90)):
        ok, shown = capture.read()
        assert ok
        assert np.abs(shown.astype(int) - expected).max() <= 4


def test_an_interrupted_run_goes_on_to_the_same_result(tmp_path: Path, tiny_weights: Path) -> None:
    folder = write_pictures(tmp_path / "shots", 40)
    options: dict[str, Any] = {"segment_seconds": 0.4, "infer": F32}
    process(sequence(folder), tmp_path / "clean", tiny_weights, **options)

    def interrupt(progress: Progress) -> None:
        if progress.stage == "frames" and progress.done == 25:
            raise KeyboardInterrupt

    config = ProcessConfig(
        source=sequence(folder), output_dir=tmp_path / "out", weights=tiny_weights, **options
    )
    with pytest.raises(Interrupted, match="segments"):
        process_video(config, interrupt)
    report = process_video(config)
    assert report["segments"]["done_before"] >= 1
    for name in ("annotated.mp4", "detections.jsonl"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()


def test_a_picture_that_changes_or_comes_on_the_way_fails_the_run(
    tmp_path: Path, tiny_weights: Path
) -> None:
    folder = write_pictures(tmp_path / "shots", 4)

    def add(progress: Progress) -> None:
        if progress.stage == "frames" and progress.done == 1:
            cv2.imwrite(str(folder / "shot_4.png"), with_light((1, 1)))

    config = ProcessConfig(
        source=sequence(folder), output_dir=tmp_path / "out", weights=tiny_weights
    )
    with pytest.raises(SourceChanged, match=r"shot_4\.png changed"):
        process_video(config, add)


@pytest.mark.parametrize("name", ["clip.mp4", "shots/*.png"])
def test_a_frame_rate_is_refused_for_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write_pictures(tmp_path / "shots", 1)
    assert main(["process", str(tmp_path / name), "--frame-rate", "24"]) == 2
    assert "for a folder of pictures" in capsys.readouterr().err


def test_a_folder_without_pictures_is_refused(tmp_path: Path, tiny_weights: Path) -> None:
    with pytest.raises(InputError, match="contains no picture"):
        process(PictureSequence(folder=tmp_path, frame_rate=RATE), tmp_path / "out", tiny_weights)


@given(st.lists(st.integers(0, 10**30), unique=True, min_size=1, max_size=6))
def test_numbers_in_names_are_sorted_as_numbers(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("shots")
    for number in numbers:
        (folder / f"Take2_{number}.PNG").touch()
    found = [path.name for path in sequence(folder).paths]
    assert found == [f"Take2_{number}.PNG" for number in sorted(numbers)]
