"""--output-size: the annotated file is scaled down; detections stay in pixels of the source."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.cli.commands import main
from pipeline.core.config import EncodeOptions
from pipeline.frames.scaled import annotated_info
from tests.conftest import info_of, process, read_detections, with_light, write_clip
from tests.programs import needs_ffmpeg

NUM_FRAMES = 12


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """640x480 with a light that moves."""
    images = [
        with_light((3 + i % 5, 3)).repeat(5, axis=0).repeat(5, axis=1) for i in range(NUM_FRAMES)
    ]
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", images)


@pytest.mark.parametrize(
    ("source_wh", "asked", "expected"),
    [
        ((3840, 2160), (1280, 720), (1280, 720)),
        ((3840, 2160), 720, (1280, 720)),
        ((2160, 3840), (1280, 720), (404, 720)),
        ((1440, 1080), (1280, 720), (960, 720)),
        ((1919, 1079), 720, (1280, 720)),
        ((640, 480), (1280, 720), (640, 480)),
        ((641, 481), 720, (641, 481)),
        ((4000, 20), (400, 400), (400, 2)),
        ((640, 480), None, (640, 480)),
    ],
)
def test_proportions_stay_and_nothing_is_scaled_up(
    source_wh: tuple[int, int], asked: tuple[int, int] | int | None, expected: tuple[int, int]
) -> None:
    scaled = annotated_info(info_of(source_wh), EncodeOptions(output_size=asked))
    assert scaled.size_wh == expected


def frames_of(path: Path) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [image.to_ndarray(format="rgb24") for image in container.decode(video=0)]


def test_the_clip_is_smaller_and_its_boxes_are_those_of_the_source(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    encode = EncodeOptions(output_size=240, crf=1)
    report = process(clip, tmp_path / "small", tiny_weights, encode=encode)
    process(clip, tmp_path / "whole", tiny_weights, encode=EncodeOptions(crf=1))
    assert report["source"]["size_wh"] == (640, 480)
    assert read_detections(tmp_path / "small") == read_detections(tmp_path / "whole")
    small, whole = (frames_of(tmp_path / name / "annotated.mp4")[3] for name in ("small", "whole"))
    assert small.shape == (240, 320, 3)
    # The picture outside of box and label is that of the whole one.
    left, top, right, bottom = (
        round(value / 2)
        for value in read_detections(tmp_path / "small")[3]["detections"][0]["xyxy"]
    )
    expected = cv2.resize(whole, (320, 240), interpolation=cv2.INTER_AREA)
    difference = np.abs(small.astype(int) - expected).max(axis=2)
    assert difference[bottom + 8 :].max() < 12
    # The sides of the box are lines of its colour there, too.
    inside = small[(top + bottom) // 2, (left + right) // 2].astype(int)
    assert np.abs(small[(top + bottom) // 2, left].astype(int) - inside).max() > 40


@needs_ffmpeg
def test_ffprobe_sees_the_size_and_every_frame(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    encode = EncodeOptions(output_size=(200, 200), codec="hevc")
    process(clip, tmp_path, tiny_weights, encode=encode)
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json"]
    shown = subprocess.run(
        [*command, str(tmp_path / "annotated.mp4")], capture_output=True, check=True
    ).stdout
    (stream,) = json.loads(shown)["streams"]
    assert (stream["width"], stream["height"]) == (200, 150)
    assert int(stream["nb_read_frames"]) == NUM_FRAMES


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p", "yuv444p"])
def test_pixels_of_other_depths_and_samplings_are_scaled_to_the_same_colours(
    pix_fmt: str, tmp_path: Path, tiny_weights: Path
) -> None:
    image = np.full((240, 320, 3), (40, 160, 90), np.uint8)
    clip = tmp_path / "clip.mkv"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 320, 240, pix_fmt
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=pix_fmt)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(output_size=120))
    shown = frames_of(tmp_path / "out" / "annotated.mp4")[1]
    assert shown.shape == (120, 160, 3)
    assert np.abs(shown.astype(int) - image[0, 0]).max() < 8


def test_a_picture_is_scaled_down_too(tmp_path: Path, tiny_weights: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), with_light((3, 3)))
    process(
        tmp_path / "a.png", tmp_path / "out", tiny_weights, encode=EncodeOptions(output_size=48)
    )
    shown = cv2.imread(str(tmp_path / "out" / "annotated.png"))
    assert shown is not None
    assert shown.shape == (48, 64, 3)


def test_render_gives_what_process_gives(clip: Path, tmp_path: Path, tiny_weights: Path) -> None:
    weights = ["--weights", str(tiny_weights)]
    for name, options in (("fused", ["--output-size", "240"]), ("found", ["--no-video"])):
        words = ["process", str(clip), "--output-dir", str(tmp_path / name), *weights, *options]
        assert main(words) == 0
    found = str(tmp_path / "found" / "detections.jsonl")
    assert main(["render", str(clip), found, "--output-size", "240"]) == 0
    fused, rendered = (tmp_path / name / "annotated.mp4" for name in ("fused", "found"))
    assert fused.read_bytes() == rendered.read_bytes()


@pytest.mark.parametrize("size", ["0", "8x8", "1280x", "large"])
def test_a_size_that_is_none_is_refused(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(["process", "clip.mp4", "--output-size", size])
    except SystemExit as error:
        code = int(error.code or 0)
    assert code == 2
    assert "output-size" in capsys.readouterr().err


def test_the_limit_on_input_says_its_new_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["process", "clip.mp4", "--max-size", "1280x720"])
    assert caught.value.code == 2
    assert "--max-input-size" in capsys.readouterr().err
