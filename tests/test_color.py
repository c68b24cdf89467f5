"""Colours: what the model sees of a frame, and how the planes of the result are tagged."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.core.boxes import Detections
from pipeline.core.config import EncodeOptions
from pipeline.core.errors import InputError
from pipeline.frames.annotate import Annotator
from pipeline.frames.decode import VideoReader
from pipeline.frames.encode import VideoEncoder
from pipeline.media.color import ToBgr, color_warnings
from pipeline.media.frame import ColorTags, Frame
from pipeline.model.letterbox import letterbox
from pipeline.model.preprocess import Preprocessor
from tests.conftest import process
from tests.programs import needs_ffmpeg

Image = NDArray[np.uint8]

LIMITED, FULL, UNSPECIFIED = 1, 2, 2
GBR, BT709, RESERVED, FCC, BT470BG, BT601, SMPTE240M, YCGCO, BT2020 = 0, 1, 3, 4, 5, 6, 7, 8, 9
MATRICES = (GBR, BT709, UNSPECIFIED, FCC, BT470BG, BT601, SMPTE240M, BT2020)
SIZE_WH = (160, 90)
NO_TAGS: Mapping[str, int] = {}

FAST = {"bgr0", "rgb24", "gbrp10le", "rgb8", "xyz12le", "gray", "gray16be", "monow", "ya8"} | {
    *("nv12", "uyvy422", "yuv410p", "yuv411p", "yuv420p", "yuv420p10le", "yuv422p", "yuv422p10le"),
    *("yuv440p", "yuv444p", "yuv444p12le", "yuva420p"),
}


def formats(names: str) -> list[Any]:
    """The pixel formats of a list; the less usual ones are for the slow tests."""
    return [
        name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
        for name in names.split()
    ]


RAW_RGB = formats(
    """
    0bgr 0rgb abgr argb bgr0 bgr24 bgr444le bgr48le bgr555le bgr565le bgr8 bgra bgra64le gbrap
    gbrap10le gbrap12le gbrap16le gbrp gbrp10le gbrp12le gbrp14le gbrp16le gbrp9le rgb0 rgb24
    rgb444le rgb48be rgb48le rgb4_byte rgb555le rgb565le rgb8 rgba rgba64le xyz12le
    """
)
RAW_GRAY = formats(
    """
    gray gray10le gray12le gray14le gray16be gray16le gray9le monob monow ya8
    """
)
RAW_YUV = formats(
    """
    nv12 nv21 uyvy422 yuyv422 yvyu422 yuv410p yuv411p yuv420p yuv420p10be yuv420p10le yuv420p12le
    yuv420p14le yuv420p16le yuv420p9le yuv422p yuv422p10le yuv422p12le yuv422p14le yuv422p16le
    yuv422p9le yuv440p yuv444p yuv444p10le yuv444p12le yuv444p14le yuv444p16le yuv444p9le yuva420p
    yuva420p10le yuva422p yuva422p12le yuva444p yuva444p10le yuva444p16le
    """
)
CODED = [
    ("libx264", "mp4", "yuv420p"),
    ("libx264", "mp4", "yuv422p"),
    ("libx264", "mp4", "yuv444p"),
    ("libx264", "mp4", "yuv420p10le"),
    ("libx264", "mp4", "yuvj420p"),
    ("libx264", "mp4", "yuvj444p"),
    ("libx264", "mp4", "gray"),
    ("libx264rgb", "mp4", "rgb24"),
    ("libx265", "mp4", "yuv420p"),
    ("libx265", "mp4", "yuv422p10le"),
    ("libx265", "mp4", "yuv444p12le"),
    ("libvpx-vp9", "webm", "yuv420p"),
    ("libvpx-vp9", "webm", "yuv440p"),
    ("prores_ks", "mov", "yuv422p10le"),
    ("prores_ks", "mov", "yuva444p10le"),
    ("mjpeg", "avi", "yuvj420p"),
    ("mjpeg", "avi", "yuvj422p"),
    ("mjpeg", "avi", "yuvj444p"),
    ("png", "mov", "rgb24"),
    ("png", "mov", "rgba"),
    ("png", "mov", "gray"),
    ("png", "mov", "gray16be"),
    ("png", "mov", "ya8"),
    ("png", "mov", "pal8"),
    ("ffv1", "mkv", "yuv411p"),
    ("ffv1", "mkv", "yuv440p"),
    ("ffv1", "mkv", "yuv420p10le"),
    ("ffv1", "mkv", "gray"),
    ("ffv1", "mkv", "gray10le"),
    ("ffv1", "mkv", "bgr0"),
    ("ffv1", "mkv", "gbrp10le"),
    ("mpeg4", "avi", "yuv420p"),
    ("qtrle", "mov", "argb"),
    ("huffyuv", "avi", "yuv422p"),
    ("jpeg2000", "mov", "yuv444p"),
]


# x265 gives packets decoding times from memory that it never set if it delays by more frames than
# there are.
OF_ENCODER = {"libx265": {"x265-params": "log-level=error:bframes=0"}}


def picture(size_wh: tuple[int, int] = SIZE_WH) -> Image:
    """A BGR picture with hard edges between colours, and slopes; the same every time."""
    width, height = size_wh
    across, down = np.meshgrid(np.arange(width) / width, np.arange(height) / height)
    slopes = np.stack([across, down, 1 - across], axis=-1) * 255
    random = np.random.default_rng(3)
    for _ in range(60):
        x, y = int(random.integers(width)), int(random.integers(height))
        slopes[y : y + 14, x : x + 14] = random.integers(0, 256, 3)
    pixels: Image = slopes.round().astype(np.uint8)
    return pixels


def record(
    path: Path,
    codec: str,
    pix_fmt: str,
    tags: Mapping[str, int] = NO_TAGS,
    size_wh: tuple[int, int] = SIZE_WH,
    pixels: Image | None = None,
) -> Path:
    """A clip of two frames, its tags as they are given and whatever they say of its pixels."""
    image = av.VideoFrame.from_ndarray(
        picture(size_wh) if pixels is None else pixels, format="bgr24"
    )
    if pix_fmt == "pal8":
        image = _palette_image(size_wh)
    elif pix_fmt != "bgr24":
        image = image.reformat(format=pix_fmt, interpolation="BICUBIC", threads=1)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=25, options=OF_ENCODER.get(codec, {}))
        stream.width, stream.height = size_wh
        stream.pix_fmt = pix_fmt
        for name, value in tags.items():
            setattr(stream.codec_context, name, value)
            setattr(image, name, value)
        for pts in range(2):
            image.pts = pts
            container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    return path


def _palette_image(size_wh: tuple[int, int]) -> av.VideoFrame:
    indices = np.arange(size_wh[0] * size_wh[1], dtype=np.uint8).reshape(size_wh[::-1])
    palette = np.random.default_rng(4).integers(0, 256, (256, 4), np.uint8)
    palette[:, 0] = 255
    return av.VideoFrame.from_ndarray((indices, palette), "pal8")  # type: ignore[arg-type]


def seen_by_opencv(clip: Path) -> Image:
    """The first frame, as BGR."""
    capture = cv2.VideoCapture(str(clip), cv2.CAP_FFMPEG)
    found, pixels = capture.read()
    capture.release()
    assert found
    return np.asarray(pixels, np.uint8)


def read(clip: Path) -> tuple[av.VideoFrame, VideoReader]:
    reader = VideoReader(clip)
    return next(iter(reader)).image, reader


def assert_seen_as_by_opencv(clip: Path, within: int = 1) -> None:
    image, reader = read(clip)
    difference = np.abs(ToBgr()(image).astype(int) - seen_by_opencv(clip))
    reader.close()
    assert difference.max() <= within


@pytest.mark.parametrize("pix_fmt", [*RAW_RGB, *RAW_GRAY, *RAW_YUV])
def test_the_model_sees_the_pixels_of_opencv_in_every_pixel_format(
    tmp_path: Path, pix_fmt: str
) -> None:
    assert_seen_as_by_opencv(record(tmp_path / "clip.nut", "rawvideo", pix_fmt))


@pytest.mark.parametrize(("codec", "suffix", "pix_fmt"), CODED)
def test_the_model_sees_the_pixels_of_opencv_in_every_codec(
    tmp_path: Path, codec: str, suffix: str, pix_fmt: str
) -> None:
    assert_seen_as_by_opencv(record(tmp_path / f"clip.{suffix}", codec, pix_fmt))


@pytest.mark.parametrize("size_wh", [(161, 90), (160, 91), (161, 91)], ids=str)
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv420p10le", "yuv410p", "gray"])
def test_the_model_sees_the_pixels_of_opencv_at_odd_sizes(
    tmp_path: Path, pix_fmt: str, size_wh: tuple[int, int]
) -> None:
    assert_seen_as_by_opencv(record(tmp_path / "clip.mkv", "ffv1", pix_fmt, size_wh=size_wh))


FEW = ["yuv420p", "yuv420p10le", "yuv444p"]
MANY = ["yuv410p", "yuv411p", "yuv422p", "yuv422p10le", "yuv440p", "yuv444p10le", "yuva420p"]
FEW_AND_MANY = [*FEW, *(pytest.param(name, marks=pytest.mark.slow) for name in MANY)]


@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("color_range", [0, LIMITED, FULL])
@pytest.mark.parametrize("pix_fmt", FEW_AND_MANY)
def test_the_model_sees_the_pixels_of_opencv_in_every_matrix_and_range(
    tmp_path: Path, pix_fmt: str, color_range: int, matrix: int
) -> None:
    tags = {"color_range": color_range, "colorspace": matrix}
    assert_seen_as_by_opencv(record(tmp_path / "clip.mkv", "ffv1", pix_fmt, tags))


WIDE_GAMUT = {"color_trc": 1, "color_primaries": 12, "colorspace": BT709}


def in_wide_gamut(folder: Path, pix_fmt: str) -> Path:
    """Colours within BT.709."""
    pixels = (picture() // 4 + 96).astype(np.uint8)
    return record(folder / f"{pix_fmt}.mkv", "ffv1", pix_fmt, WIDE_GAMUT, pixels=pixels)


def seen_and_plain(clip: Path) -> tuple[Image, Image]:
    """RGB as the model sees it, and without mapping primaries."""
    image, reader = read(clip)
    seen = np.zeros((SIZE_WH[1], SIZE_WH[0], 3), np.uint8)
    frame = Frame(0, 0, 1, Fraction(1, 25), image)
    Preprocessor(letterbox(SIZE_WH, SIZE_WH))(frame, seen)
    reader.close()
    return seen, ToBgr()(image)[..., ::-1]


@pytest.mark.parametrize("pix_fmt", ["yuv444p", pytest.param("bgr0", marks=pytest.mark.slow)])
def test_primaries_are_mapped_to_bt709_as_by_opencv(tmp_path: Path, pix_fmt: str) -> None:
    clip = in_wide_gamut(tmp_path, pix_fmt)
    (seen, plain), expected = seen_and_plain(clip), seen_by_opencv(clip)[..., ::-1]
    assert np.abs(plain.astype(int) - expected).max() > 10
    assert np.abs(seen.astype(int) - expected).max() <= 2


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv420p10le"])
def test_primaries_of_fewer_chroma_samples_come_close_to_those_of_opencv(
    tmp_path: Path, pix_fmt: str
) -> None:
    clip = in_wide_gamut(tmp_path, pix_fmt)
    (seen, plain), expected = seen_and_plain(clip), seen_by_opencv(clip)[..., ::-1]
    error, unmapped_error = (np.abs(x.astype(int) - expected).mean() for x in (seen, plain))
    assert error < unmapped_error / 2


def planes_of_the_result(image: av.VideoFrame, reader: VideoReader) -> Image:
    """What the encoder takes of a frame without detections, plane after plane."""
    planes = Annotator(reader.info, ("thing",))(image, Detections.empty())
    assert planes.format.name == "yuv420p"
    return planes.to_ndarray().astype(np.uint8, copy=False).ravel()


FFV1_YUV = [*FEW, *MANY]


PLANES: list[tuple[str, str, dict[str, int]]] = [
    *(("rawvideo", pix_fmt, {}) for pix_fmt in FFV1_YUV),
    *(("rawvideo", pix_fmt, {}) for pix_fmt in ("nv12", "uyvy422", "yuv420p16le", "yuva444p")),
    *(("ffv1", pix_fmt, {"color_range": FULL, "colorspace": BT709}) for pix_fmt in FFV1_YUV),
    *(("ffv1", pix_fmt, {"color_range": LIMITED, "colorspace": 14}) for pix_fmt in FFV1_YUV),
]


@pytest.fixture(scope="module")
def planes_by_ffmpeg(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Image]]:
    """The clip of each of PLANES, and its first frame as yuv420p by the ffmpeg program.

    One program for all: it takes longer to start than to decode them.
    """
    folder = tmp_path_factory.mktemp("planes")
    clips = []
    for number, (codec, pix_fmt, tags) in enumerate(PLANES):
        suffix = "nut" if codec == "rawvideo" else "mkv"
        clips.append(record(folder / f"{number}.{suffix}", codec, pix_fmt, tags))
    command = ["ffmpeg", "-v", "error", *(word for clip in clips for word in ("-i", str(clip)))]
    for number, (clip, (_, _, tags)) in enumerate(zip(clips, PLANES, strict=True)):
        # Of the clip and of the planes, so that it does not convert the one to the other, as it
        # does by default with full range.
        color_range = tags.get("color_range", 0)
        same_range = f"scale=in_range={color_range}:out_range={color_range}"
        command += ["-map", f"{number}:v", "-frames:v", "1"]
        command += ["-vf", f"{same_range},format=yuv420p", "-f", "rawvideo", f"{clip}.raw"]
    subprocess.run(command, capture_output=True, check=True)
    return [(clip, np.fromfile(f"{clip}.raw", np.uint8)) for clip in clips]


@needs_ffmpeg
@pytest.mark.parametrize("number", range(len(PLANES)), ids=lambda number: str(PLANES[number]))
def test_planes_become_8_bit_as_those_of_ffmpeg(
    planes_by_ffmpeg: list[tuple[Path, Image]], number: int
) -> None:
    clip, expected = planes_by_ffmpeg[number]
    image, reader = read(clip)
    difference = planes_of_the_result(image, reader).astype(int) - expected
    reader.close()
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize("pix_fmt", ["gray", "gray10le", "gray16le", "ya8"])
def test_planes_of_untagged_grey_keep_its_levels_and_are_tagged_full_range(
    tmp_path: Path, pix_fmt: str
) -> None:
    image, reader = read(record(tmp_path / "clip.nut", "rawvideo", pix_fmt))
    planes = planes_of_the_result(image, reader)
    reader.close()
    assert reader.info.color == ColorTags(range=FULL, space=BT601)
    levels = image.reformat(format="gray").to_ndarray().astype(int)
    luma = planes[: levels.size].reshape(levels.shape)
    assert np.abs(levels - luma).max() <= 1
    assert (planes[levels.size :] == 128).all()


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt", "tags", "expected"),
    [
        ("png", "mov", "pal8", {}, ColorTags(LIMITED, space=BT601)),
        ("png", "mov", "rgb24", {}, ColorTags(LIMITED, space=BT601)),
        ("png", "mov", "gray", {}, ColorTags(FULL, space=BT601)),
        ("ffv1", "mkv", "gray", {"color_range": LIMITED}, ColorTags(LIMITED, space=BT601)),
        ("ffv1", "mkv", "gray", {"colorspace": BT709}, ColorTags(FULL, space=BT709)),
        ("ffv1", "mkv", "bgr0", {"color_range": FULL}, ColorTags(LIMITED, space=BT601)),
        ("mjpeg", "avi", "yuvj420p", {}, ColorTags(FULL, space=BT470BG)),
        ("ffv1", "mkv", "yuv420p", {"color_range": 0}, ColorTags(0)),
        ("ffv1", "mkv", "yuv420p", {"colorspace": GBR}, ColorTags(space=BT601)),
        ("ffv1", "mkv", "yuv420p", {"colorspace": RESERVED}, ColorTags()),
        ("ffv1", "mkv", "yuv420p", {"colorspace": 17}, ColorTags(space=BT601)),
        ("ffv1", "mkv", "yuv420p", {"colorspace": YCGCO}, ColorTags(space=YCGCO)),
        ("ffv1", "mkv", "yuv420p", {"color_primaries": 3, "color_trc": 3}, ColorTags()),
        ("ffv1", "mkv", "yuv420p", {"color_primaries": 22}, ColorTags(primaries=22)),
        ("ffv1", "mkv", "yuv420p", {"color_primaries": 12}, ColorTags(primaries=12)),
    ],
)
def test_tags_are_those_of_the_source_where_they_describe_the_planes_of_the_result(
    tmp_path: Path,
    codec: str,
    suffix: str,
    pix_fmt: str,
    tags: dict[str, int],
    expected: ColorTags,
) -> None:
    _, reader = read(record(tmp_path / f"clip.{suffix}", codec, pix_fmt, tags))
    reader.close()
    assert reader.info.color == expected


def result_of(clip: Path, options: EncodeOptions) -> Path:
    """A clip as it is encoded where nothing is found in it."""
    result = clip.with_name("result.mp4")
    reader = VideoReader(clip)
    annotator = Annotator(reader.info, ("thing",))
    encoder = VideoEncoder(result, reader.info, options)
    for frame in reader:
        image = annotator(frame.image, Detections.empty())
        encoder.encode(image, frame.pts, frame.duration, frame.time_base)
    encoder.flush()
    encoder.close()
    reader.close()
    return result


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
@pytest.mark.parametrize(
    ("pix_fmt", "tags"),
    [
        ("yuv420p", {"colorspace": GBR}),
        ("yuv420p", {"colorspace": RESERVED, "color_primaries": 3, "color_trc": 3}),
        ("yuv420p", {"colorspace": 17, "color_primaries": 22}),
        ("yuv420p", {"colorspace": YCGCO}),
        ("gray", {}),
        ("bgr0", {}),
    ],
    ids=str,
)
def test_every_output_codec_takes_the_tags_of_any_clip(
    tmp_path: Path, codec: str, pix_fmt: str, tags: dict[str, int]
) -> None:
    clip = record(tmp_path / "clip.mkv", "ffv1", pix_fmt, tags)
    with av.open(str(result_of(clip, EncodeOptions(codec=codec)))) as container:
        frames = list(container.decode(video=0))
    assert len(frames) == 2
    assert {int(frame.colorspace) for frame in frames} <= {UNSPECIFIED, BT601, YCGCO}
    if pix_fmt == "gray":
        assert {int(frame.color_range) for frame in frames} == {FULL}


@pytest.mark.parametrize(("codec", "suffix", "pix_fmt"), CODED)
def test_a_result_looks_like_its_source_whatever_the_pixels_of_the_source(
    tmp_path: Path, codec: str, suffix: str, pix_fmt: str
) -> None:
    clip = record(tmp_path / f"clip.{suffix}", codec, pix_fmt)
    result = result_of(clip, EncodeOptions(crf=1))
    # Blurred, because chroma of fewer samples blurs the edges of colours.
    source, shown = (cv2.blur(seen_by_opencv(path), (9, 9)) for path in (clip, result))
    assert np.median(np.abs(source.astype(int) - shown)) <= 2


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt", "tags", "words"),
    [
        ("ffv1", "mkv", "yuv420p", {}, ()),
        ("png", "mov", "rgba", {}, ("alpha", "RGB")),
        ("prores_ks", "mov", "yuva444p10le", {}, ("alpha", "4:4:4", "hevc or av1 keeps 10")),
        ("libx265", "mp4", "yuv420p10le", {"color_trc": 16}, ("--codec hevc or av1 keeps 10",)),
        ("libx265", "mp4", "yuv420p", {"color_trc": 18}, ()),
        ("ffv1", "mkv", "yuv420p", {"colorspace": GBR}, ("not valid",)),
        ("ffv1", "mkv", "yuv420p", {"colorspace": YCGCO}, ("not supported",)),
        ("png", "mov", "gray", {}, ()),
    ],
)
def test_what_is_lost_or_doubtful_in_the_colours_is_said_in_one_line(
    tmp_path: Path,
    tiny_weights: Path,
    codec: str,
    suffix: str,
    pix_fmt: str,
    tags: dict[str, int],
    words: tuple[str, ...],
) -> None:
    clip = record(tmp_path / f"clip.{suffix}", codec, pix_fmt, tags)
    report = process(clip, tmp_path / "out", tiny_weights)
    notes = [str(text) for text in report["output"]["notes"]]
    assert len(notes) == len(words)
    for text, word in zip(notes, words, strict=True):
        assert word in text
        assert "\n" not in text


def test_dolby_vision_is_said() -> None:
    image = av.VideoFrame(16, 16, "yuv420p10le")
    (warning,) = color_warnings(image, needs_dolby_vision=True)
    assert "Dolby Vision" in warning
    assert color_warnings(image) == ()


def with_dolby_vision(clip: Path, profile: int, compatible_with: int) -> Path:
    """Put a Dolby Vision configuration into the sample entry of an MP4 whose index comes last."""
    content = clip.read_bytes()
    record = bytes([1, 0, profile << 1, 0x0D, compatible_with << 4]) + bytes(19)
    box = struct.pack(">I4s", 8 + len(record), b"dvcC" if profile < 8 else b"dvvC") + record
    entry = content.index(b"avc1", content.index(b"stsd")) - 4
    end = entry + int.from_bytes(content[entry : entry + 4], "big")
    grown = bytearray(content[:end] + box + content[end:])
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        place = grown.index(kind, content.index(b"moov")) - 4
        size = int.from_bytes(grown[place : place + 4], "big") + len(box)
        grown[place : place + 4] = size.to_bytes(4, "big")
    clip.write_bytes(grown)
    return clip


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize(("profile", "compatible_with", "is_said"), [(5, 0, 1), (8, 1, 0)])
def test_dolby_vision_that_no_other_decoder_shows_right_is_said(
    tmp_path: Path, suffix: str, profile: int, compatible_with: int, is_said: int
) -> None:
    plain = record(tmp_path / "plain.mp4", "libx264", "yuv420p", {})
    marked, clip = with_dolby_vision(plain, profile, compatible_with), tmp_path / f"clip.{suffix}"
    command = ("ffmpeg", "-v", "error", "-i", marked, "-c", "copy", "-strict", "-2", clip)
    subprocess.run(command, check=True, capture_output=True)
    reader = VideoReader(clip)
    reader.close()
    assert sum("Dolby Vision" in warning for warning in reader.info.warnings) == is_said


def test_pixels_that_cannot_be_converted_are_refused_in_one_line(tmp_path: Path) -> None:
    image, reader = read(record(tmp_path / "clip.nut", "rawvideo", "bgr4"))
    with pytest.raises(InputError, match="bgr4"):
        ToBgr()(image)
    reader.close()
