"""Redaction of all kinds of footage: nothing of what is covered is left, nor what identifies.

Clips are made, and results read, by the programs of FFmpeg.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from pipeline.core.config import EncodeOptions, RedactOptions
from pipeline.frames.redact import Redactor
from pipeline.media.color import ToYuv420p
from tests.conftest import gray, info_of, process, write_clip
from tests.programs import ffmpeg, needs_ffmpeg
from tests.recordings import record
from tests.redacted_frames import COVERS, brightest, noise_frame, samples_of

REDACT = RedactOptions(covered=("light",), cover_style="fill", hold_seconds=0.1)
NUM_FRAMES = 8
HEVC = ("-c:v", "libx265", "-preset", "ultrafast")
HDR = "log-level=error:colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc"
ENCODED: dict[str, tuple[object, ...]] = {
    "10 bit HDR": (*HEVC, "-pix_fmt", "yuv420p10le", "-x265-params", HDR),
    "4:2:2": ("-c:v", "libx264", "-qp", 4, "-pix_fmt", "yuv422p"),
    "4:4:4 in 10 bit": ("-c:v", "libx264", "-qp", 4, "-pix_fmt", "yuv444p10le"),
    "RGB": ("-c:v", "libx264rgb", "-qp", 4),
    "odd sides": ("-c:v", "libx264", "-qp", 4, "-vf", "crop=125:91:0:0:exact=1,format=yuv444p"),
    "uneven times": ("-c:v", "libx264", "-qp", 4, "-vf", "setpts='(N+gt(N\\,3)*9)/25/TB'"),
    "interlaced": ("-c:v", "mpeg2video", "-q:v", 2, "-flags", "+ildct+ilme", "-top", 1),
}


@pytest.fixture(scope="module")
def lit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A light goes down and to the right."""
    images = []
    for index in range(NUM_FRAMES):
        image = gray(20)
        image[24 + 8 * index : 32 + 8 * index, 32 + 8 * index : 40 + 8 * index] = 255
        images.append(image)
    folder = tmp_path_factory.mktemp("lit")
    return write_clip(folder / "lit.mp4", images, options={"qp": "0"})


@pytest.fixture(scope="module")
def lit_in_each_kind(lit: Path) -> dict[str, Path]:
    """One program makes all: it takes longer to start than to do that."""
    clips, making = {}, list[object](("-i", lit))
    for number, (kind, options) in enumerate(ENCODED.items()):
        clips[kind] = lit.with_name(f"{number}.{'mpg' if kind == 'interlaced' else 'mp4'}")
        making += ["-map", 0, *options, "-fps_mode", "passthrough", clips[kind]]
    ffmpeg(*making)
    return clips


@needs_ffmpeg
@pytest.mark.parametrize("kind", ENCODED)
def test_a_light_is_covered_in_every_kind_of_clip(
    kind: str, lit_in_each_kind: dict[str, Path], tiny_weights: Path, tmp_path: Path
) -> None:
    clip = lit_in_each_kind[kind]
    assert brightest(clip) > 200
    encode = EncodeOptions(codec="hevc") if "HDR" in kind else EncodeOptions()
    process(clip, tmp_path / "out", tiny_weights, redact=REDACT, encode=encode)
    assert brightest(tmp_path / "out" / "annotated.mp4") < 80


def test_a_light_is_covered_in_a_clip_that_is_to_be_turned(
    tiny_weights: Path, tmp_path: Path
) -> None:
    stored = []
    for index in range(NUM_FRAMES):
        image = gray(20, (96, 128))
        image[16 + 8 * index : 24 + 8 * index, 16:24] = 255
        stored.append(image)
    clip = record(tmp_path / "clip.mp4", stored, configure=lambda s: s.set_display_rotation(90))
    report = process(clip, tmp_path / "out", tiny_weights, redact=REDACT)
    assert report["source"]["rotation_degrees"] == 90
    assert report["detections"]["total"]
    assert brightest(tmp_path / "out" / "annotated.mp4") < 80


def test_a_light_is_covered_in_a_clip_of_another_size(
    lit: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    encode = EncodeOptions(output_size=(64, 48))
    process(lit, tmp_path, tiny_weights, redact=REDACT, encode=encode)
    assert brightest(tmp_path / "annotated.mp4") < 80


def test_a_light_is_covered_in_a_still_picture(tiny_weights: Path, tmp_path: Path) -> None:
    image = gray(20)
    image[24:32, 32:40] = 255
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), image)
    process(path, tmp_path / "out", tiny_weights, redact=REDACT)
    drawn = cv2.imread(str(tmp_path / "out" / "annotated.png"))
    assert drawn is not None
    assert drawn.max() < 80
    assert (drawn == 20).mean() > 0.9


@pytest.mark.parametrize("pixel_format", ["yuv422p", "yuv444p", "yuv422p10le", "yuv444p10le"])
def test_other_pixels_are_those_of_a_frame_that_is_only_converted(pixel_format: str) -> None:
    info = info_of((131, 97))
    bits = 10 if "10" in pixel_format else 8
    frames = [noise_frame(pixel_format) for _ in range(2)]
    plain = samples_of(ToYuv420p(info.color, bits)(frames[0]))
    covered = samples_of(Redactor(info, "fill", {0}, bits)(frames[1], COVERS))
    for number, (old, new) in enumerate(zip(plain, covered, strict=True)):
        step = 2 if number else 1
        outside = np.ones(old.shape, bool)
        for left, top, right, bottom in COVERS.tolist():
            outside[top // step : -(-bottom // step), left // step : -(-right // step)] = False
        assert outside.mean() > 0.4
        assert np.array_equal(old[outside], new[outside])
        assert (old[~outside] != new[~outside]).mean() > 0.9


CHAPTERS = """;FFMETADATA1
artist=Ann
location=+48.2082+016.3738/
com.apple.quicktime.location.ISO6709=+48.2082+016.3738+171/
[CHAPTER]
TIMEBASE=1/1000
START=0
END=200
title=Chez Ann
"""


def camera_clip(folder: Path, lit: Path, *more: str) -> Path:
    """As a camera writes it: with a place, a data track of places, a cover, another view.

    The data track is one of time codes under the name that GoPro gives its places. more: options.
    """
    (folder / "tags.txt").write_text(CHAPTERS)
    (folder / "said.srt").write_text("1\n00:00:00,000 --> 00:00:00,200\nHello Ann\n")
    cv2.imwrite(str(folder / "cover.jpg"), gray(255))
    clip = folder / "clip.mov"
    inputs = ("-i", lit, "-i", folder / "cover.jpg", "-i", folder / "said.srt")
    tags = ("-f", "ffmetadata", "-i", folder / "tags.txt", "-map_metadata", 3, "-map_chapters", 3)
    maps = ("-map", "0:v", "-map", "0:v", "-map", "1:v", "-map", "2:s")
    kinds = ("-c", "copy", "-c:s", "mov_text", "-disposition:v:2", "attached_pic")
    times = ("-timecode", "01:02:03:04")
    ffmpeg(*inputs, *tags, *maps, *kinds, *times, *more, clip.with_suffix(".mp4"))
    content = clip.with_suffix(".mp4").read_bytes()
    clip.write_bytes(content.replace(b"tmcd", b"gpmd"))
    return clip


@needs_ffmpeg
@pytest.mark.parametrize(
    ("options", "kept"),
    [(("-movflags", "use_metadata_tags"), b"16.3738"), ((), b"covr")],
    ids=["a place in tags", "a cover"],
)
def test_nothing_of_a_camera_but_the_picture_is_kept(
    options: tuple[str, ...], kept: bytes, lit: Path, tiny_weights: Path, tmp_path: Path
) -> None:
    clip = camera_clip(tmp_path, lit, *options)
    assert kept in clip.read_bytes()
    report: dict[str, Any] = process(clip, tmp_path / "out", tiny_weights, redact=REDACT)
    annotated = tmp_path / "out" / "annotated.mp4"
    show = ["ffprobe", "-v", "error", "-show_streams", "-show_chapters", "-show_format"]
    done = subprocess.run([*show, "-of", "json", annotated], capture_output=True, check=True)
    found = json.loads(done.stdout)
    assert [stream["codec_type"] for stream in found["streams"]] == ["video"]
    assert found["chapters"] == []
    assert found["format"]["tags"].keys() <= {
        "major_brand",
        "minor_version",
        "compatible_brands",
        "encoder",
    }
    content = annotated.read_bytes()
    assert not [word for word in (kept, b"Ann", b"loci", b"gpmd", b"tmcd") if word in content]
    said = "\n".join(report["output"]["notes"])
    for kind in ("(video", "(subtitle", "(data", "chapter", "LOCATION"):
        assert kind.upper() in said.upper(), said
    assert brightest(annotated) < 80
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or kept not in path.read_bytes(), path
