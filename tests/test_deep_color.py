"""Clips of 10 bits and HDR: what the model sees of them, and what is drawn and written."""

from __future__ import annotations

import base64
import dataclasses
import json
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import pipeline
from pipeline.core.boxes import Detections
from pipeline.core.config import EncodeOptions, ProcessConfig
from pipeline.core.errors import Interrupted
from pipeline.frames.annotate import Annotator, class_color
from pipeline.frames.codecs import CODECS, annotated_bits, encoding_warnings
from pipeline.frames.decode import VideoReader
from pipeline.frames.snapshots import Snapshots
from pipeline.media.frame import ColorTags, Frame, HdrMetadata, plane_rows
from pipeline.model.letterbox import Letterbox
from pipeline.model.preprocess import Preprocessor
from pipeline.model.tone_map import ToneMap
from pipeline.run.process import process_video
from tests.conftest import info_of, process
from tests.drawings import found
from tests.programs import needs_ffmpeg
from tests.resuming import interrupted_at, results

SAMPLE = Path(__file__).resolve().parents[1] / "samples" / "clip.mp4"
SDR, PQ, HLG = (1, 1, 1), (9, 16, 9), (9, 18, 9)
"""Primaries, transfer and matrix."""
MASTERING = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
IN_BT2020 = np.array(
    [(0.627404, 0.329283, 0.043313), (0.069097, 0.919540, 0.011362), (0.016391, 0.088013, 0.895595)]
)


def lifted(rgb: NDArray[np.uint8], trc: int) -> NDArray[np.float64]:
    """SDR as BT.2408 puts it into HDR: gamma 2.4, white at 203 cd/m2, BT.2020; R'G'B' in 0..1."""
    nits = 203 * (rgb / 255) ** 2.4 @ IN_BT2020.T
    if trc == 16:  # SMPTE ST 2084.
        power = (nits / 10000) ** 0.1593017578125
        return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)
    if trc == 18:  # ARIB STD-B67, shown at 1000 cd/m2.
        luma = nits @ (0.2627, 0.6780, 0.0593) / 1000
        scene = nits / 1000 * np.maximum(luma, 1e-12)[..., None] ** (1 / 1.2 - 1)
        high = 0.17883277 * np.log(np.maximum(12 * scene - 0.28466892, 1e-9)) + 0.55991073
        return np.asarray(np.where(scene <= 1 / 12, np.sqrt(3 * scene), high))
    return np.asarray(rgb / 255)


def deep_frame(rgb: NDArray[np.uint8], tags: tuple[int, int, int]) -> av.VideoFrame:
    """A picture with even sides as yuv420p10le of limited range."""
    primaries, trc, matrix = tags
    signal, (height, width, _) = lifted(rgb, trc), rgb.shape
    red, blue = {1: (0.2126, 0.0722), 9: (0.2627, 0.0593)}[matrix]
    luma = signal @ (red, 1 - red - blue, blue)
    colors = [(signal[..., 2] - luma) / (1 - blue), (signal[..., 0] - luma) / (1 - red)]
    shared = [c.reshape(height // 2, 2, width // 2, 2).mean((1, 3)) / 2 for c in colors]
    frame = av.VideoFrame(width, height, "yuv420p10le")
    levels = (64 + 876 * luma, *(512 + 896 * color for color in shared))
    for plane, level in zip(frame.planes, levels, strict=True):
        plane_rows(plane).view(np.uint16)[:, : plane.width] = level.round().clip(4, 1019)
    frame.color_range, frame.color_primaries = 1, primaries
    frame.color_trc, frame.colorspace = trc, matrix
    return frame


def write_deep(
    path: Path, pictures: list[NDArray[np.uint8]], tags: tuple[int, int, int], **options: str
) -> Path:
    """A clip of 10 bits: FFV1, or HEVC with parameters of x265."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx265" if options else "ffv1", rate=25, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv420p10le"
        context = stream.codec_context
        context.color_primaries, context.color_trc, context.colorspace = tags
        context.color_range = 1
        for picture in pictures:
            container.mux(stream.encode(deep_frame(picture, tags)))
        container.mux(stream.encode(None))
    return path


def gradient(width: int = 128, height: int = 96) -> NDArray[np.uint8]:
    y, x = np.mgrid[:height, :width]
    levels = (x * 255 // width, y * 255 // height, (x + y) * 255 // (width + height))
    return np.stack(levels, axis=2).astype(np.uint8)


def samples_of(frame: av.VideoFrame) -> list[NDArray[np.uint16]]:
    return [plane_rows(p).view(np.uint16)[:, : p.width].copy() for p in frame.planes]


@pytest.mark.parametrize("tags", [PQ, HLG], ids=["PQ", "HLG"])
@pytest.mark.parametrize("size_wh", [(128, 96), (80, 60), (40, 30)], ids=str)
def test_what_was_sdr_is_seen_as_it_was(
    tags: tuple[int, int, int], size_wh: tuple[int, int]
) -> None:
    # Below white, where light is squeezed in, and away from black, where signals of HDR are steep.
    picture = (40 + gradient() * 0.75).astype(np.uint8)
    sdr, hdr = (seen(deep_frame(picture, kind), size_wh) for kind in (SDR, tags))
    difference = np.abs(sdr.astype(int) - hdr)
    assert difference.mean() < 2.2
    assert np.percentile(difference, 95) <= 6
    assert np.array_equal(ToneMap()(deep_frame(picture, tags), size_wh), hdr)


def seen(frame: av.VideoFrame, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
    """What the model gets of a frame, at a size."""
    pixels = np.zeros((*size_wh[::-1], 3), np.uint8)
    Preprocessor(Letterbox((frame.width, frame.height), size_wh, size_wh, (0, 0)))(
        Frame(0, 0, 1, Fraction(1, 25), frame), pixels
    )
    return pixels


def test_the_pictures_of_the_report_are_those_of_sdr() -> None:
    shown = []
    for kind in (SDR, PQ):
        snapshots = Snapshots([0.0], ("car",))
        picture = (40 + gradient() * 0.75).astype(np.uint8)
        snapshots.look(0.0, deep_frame(picture, kind), found((10, 10, 60, 60)))
        (kept,) = snapshots.pictures()
        jpeg = np.frombuffer(base64.b64decode(kept.url.partition(",")[2]), np.uint8)
        pixels = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        assert pixels is not None
        shown.append(pixels.astype(int))
    assert np.abs(shown[0] - shown[1]).mean() < 2.5


def test_light_beyond_the_white_of_sdr_stays_in_order() -> None:
    frame = av.VideoFrame(128, 96, "yuv444p10le")
    for plane, level in zip(frame.planes, (0, 512, 512), strict=True):
        plane_rows(plane).view(np.uint16)[:] = level
    plane_rows(frame.planes[0]).view(np.uint16)[:, :128] = np.linspace(64, 940, 128).round()
    frame.color_range, frame.color_primaries, frame.color_trc, frame.colorspace = 1, *PQ
    row = ToneMap()(frame, (128, 96))[50, :, 1].astype(int)
    assert (np.diff(row) >= 0).all()
    white = 74  # 58% of PQ is 203 cd/m2.
    assert row[0] == 0
    assert 240 < row[white] < row[white + 6] < 255
    assert row[-1] == 255


def test_the_model_finds_in_hdr_what_it_finds_in_sdr(tmp_path: Path) -> None:
    with av.open(str(SAMPLE)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][:40:20]
    boxes = []
    for kind in (SDR, PQ, HLG):
        clip = write_deep(tmp_path / f"{kind[1]}.mkv", frames, kind)
        found_in = pipeline.detect(clip, weights="demo", reuse=False)
        boxes.append([box for frame in found_in for box in frame.boxes])
    sdr, *others = boxes
    assert len(sdr) >= 10
    for hdr in others:
        assert abs(len(sdr) - len(hdr)) <= 0.01 * len(sdr)
        near = [
            any(
                a.class_name == b.class_name and np.abs(np.subtract(a.xyxy, b.xyxy)).max() < 3
                for b in hdr
            )
            for a in sdr
        ]
        assert sum(near) >= 0.99 * len(sdr)


@pytest.mark.parametrize("tags", [SDR, PQ], ids=["SDR", "PQ"])
def test_nothing_changes_but_the_boxes_which_are_as_bright_as_sdr(
    tags: tuple[int, int, int], tmp_path: Path
) -> None:
    clip = write_deep(tmp_path / "clip.mkv", [gradient(320, 240)] * 2, tags)
    reader = VideoReader(clip)
    frame = next(iter(reader)).image
    before = samples_of(frame)
    after = samples_of(Annotator(reader.info, ("car",), bits=10)(frame, found((60, 60, 260, 200))))
    y, u, v = class_color(0, reader.info.color, 10)
    assert [
        int(plane[0]) for plane in (after[0][130, 60:], after[1][65, 30:], after[2][65, 30:])
    ] == [
        y,
        u,
        v,
    ]
    untouched = np.ones((240, 320), bool)
    untouched[30:202, 58:262] = False
    for plane, other, step in zip(before, after, (1, 2, 2), strict=True):
        assert np.array_equal(plane[untouched[::step, ::step]], other[untouched[::step, ::step]])
    # Beside the white of SDR at 58% of PQ; in SDR by four times its 8 bits.
    white = max(class_color(number, reader.info.color, 10).y for number in range(80))
    assert white < (64 + 876 * 0.58 if tags == PQ else 940)
    eight = class_color(0, ColorTags(1, *SDR))
    if tags == SDR:
        assert max(abs(a - 4 * b) for a, b in zip((y, u, v), eight, strict=True)) <= 2
    reader.close()


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize(("tags", "white"), [(PQ, 0.5807), (HLG, 0.7499)], ids=["PQ", "HLG"])
def test_boxes_and_labels_on_hdr_are_lit_as_sdr_is_beside_it(
    tags: tuple[int, int, int], white: float, bits: int
) -> None:
    frame = deep_frame(np.zeros((480, 640, 3), np.uint8), tags)
    annotator = Annotator(info_of((640, 480), ColorTags(1, *tags)), ("car",), bits=bits)
    luma = annotator(frame, found((60, 60, 260, 200))).to_ndarray()[:480]
    color = np.array(class_color(0, None)[::-1], np.uint8)  # Of a picture, in BGR.
    unit, shares = 1 << bits - 8, (0.2627, 0.6780, 0.0593)
    expected = unit * (16 + 219 * lifted(color, tags[1]) @ shares)
    assert luma[130, 60] == pytest.approx(expected, abs=1)
    # 203 cd/m2, the white of the text, is 58% of PQ and 75% of HLG.
    assert luma.max() == pytest.approx(unit * (16 + 219 * white), abs=2 * unit)


@pytest.mark.parametrize("pix_fmt", ["p010le", "yuv422p10le", "yuv444p12le", "yuv420p10be"])
def test_other_deep_formats_keep_their_luma(pix_fmt: str) -> None:
    image = deep_frame(gradient(), SDR)
    luma = samples_of(image)[0]
    other = image.reformat(format=pix_fmt)
    info = info_of((128, 96), ColorTags(1, *SDR))
    drawn = Annotator(info, ("car",), bits=10)(other, Detections.empty())
    assert drawn.format.name == "yuv420p10le"
    assert np.abs(samples_of(drawn)[0].astype(int) - luma).max() <= 1


def shown(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What ffprobe says of the stream, and of the data beside its first picture, by kind."""
    command = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", "-show_frames"]
    done = subprocess.run(
        [*command, "-select_streams", "v", "-read_intervals", "%+#1", str(path)],
        capture_output=True,
        check=True,
    )
    said = json.loads(done.stdout)
    beside = said["frames"][0].get("side_data_list", [])
    return said["streams"][0], {entry["side_data_type"]: entry for entry in beside}


@needs_ffmpeg
@pytest.mark.parametrize("codec", ["hevc", "av1"])
def test_an_hdr_clip_stays_one_with_all_that_says_how_to_show_it(
    codec: str, tmp_path: Path, tiny_weights: Path
) -> None:
    params = f"log-level=error:master-display={MASTERING}:max-cll=1000,400"
    clip = write_deep(
        tmp_path / "clip.mp4",
        [gradient()] * 3,
        PQ,
        **{"x265-params": params, "preset": "ultrafast"},
    )
    source, expected = shown(clip)
    report = process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(codec=codec))
    stream, beside = shown(tmp_path / "out" / "annotated.mp4")
    tags = ("pix_fmt", "color_range", "color_space", "color_transfer", "color_primaries")
    assert [stream[tag] for tag in tags] == [source[tag] for tag in tags]
    assert stream["pix_fmt"] == "yuv420p10le"
    assert stream["color_transfer"] == "smpte2084"
    for kind in ("Mastering display metadata", "Content light level metadata"):
        values = {name: _number(value) for name, value in beside[kind].items()}
        assert values == pytest.approx(
            {name: _number(value) for name, value in expected[kind].items()}, rel=1e-3, abs=2e-5
        )
    assert report["output"]["notes"] == []


def test_an_interrupted_run_of_an_hdr_clip_ends_with_the_same_bytes(
    tmp_path: Path, tiny_weights: Path
) -> None:
    keys = {"x265-params": "log-level=error:keyint=10:min-keyint=10", "preset": "ultrafast"}
    clip = write_deep(tmp_path / "clip.mp4", [gradient()] * 30, PQ, **keys)
    hevc: dict[str, Any] = {"encode": EncodeOptions(codec="hevc"), "segment_seconds": 0.4}
    process(clip, tmp_path / "whole", tiny_weights, **hevc)
    config = ProcessConfig(source=clip, output_dir=tmp_path / "again", weights=tiny_weights, **hevc)
    with pytest.raises(Interrupted):
        process_video(config, interrupted_at(15, KeyboardInterrupt()))
    process_video(config)
    assert results(tmp_path / "again") == results(tmp_path / "whole")


def _number(text: Any) -> Any:
    """A number, a fraction such as 34000/50000, or 0 for a word."""
    above, _, below = str(text).partition("/")
    return float(above) / float(below or 1) if above.isdigit() else 0.0


def test_a_line_says_how_to_keep_10_bits_where_the_codec_has_8() -> None:
    hdr = HdrMetadata(None, (1000, 400))
    deep = dataclasses.replace(info_of(), pix_fmt="yuv420p10le", hdr=hdr)
    for codec in CODECS:
        options = EncodeOptions(codec=codec)
        kept = codec in ("hevc", "av1")
        assert annotated_bits(deep, options) == (10 if kept else 8)
        assert annotated_bits(info_of(), options) == 8
        said = encoding_warnings(deep, options)
        assert len(said) == (0 if kept else 2)
        assert all("--codec hevc or av1 keeps" in line for line in said)
        assert encoding_warnings(info_of(), options) == ()


@pytest.mark.parametrize(
    ("pix_fmt", "named"),
    [
        ("yuv422p", ["4:2:2"]),
        ("yuvj444p", ["4:4:4"]),
        ("yuv411p", ["4:1:1"]),
        ("gbrp", ["RGB"]),
        ("yuv420p12le", ["12 bits"]),
        ("yuv444p12le", ["4:4:4", "12 bits"]),
        ("nv12", []),
        ("gray", []),
        ("yuv410p", []),
    ],
)
def test_a_line_says_what_is_lost_of_colours_and_depth(pix_fmt: str, named: list[str]) -> None:
    info = dataclasses.replace(info_of(), pix_fmt=pix_fmt)
    said = encoding_warnings(info, EncodeOptions(codec="hevc"))
    assert len(said) == len(named)
    assert all(name in line for name, line in zip(named, said, strict=True))
