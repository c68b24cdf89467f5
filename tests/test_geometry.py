"""What is annotated is the picture that a player shows: cropped, upright, of the right track."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.config import DetectOptions, EncodeOptions
from pipeline.core.errors import InputError
from pipeline.media.geometry import Display, geometry_of, side_data_of
from pipeline.media.headers import Crop, lacks_mp4_index, read_track_headers
from tests.conftest import SHARED, process, read_detections, write_clip
from tests.programs import needs_ffmpeg
from tests.recordings import Image, four_corners, jpeg_with_orientation

needs_cases = pytest.mark.skipif(
    not (SHARED / "cases").is_dir(), reason="needs the clips in ../shared/cases"
)


NOTHING = DetectOptions(classes=("shade",))
"""A class that is never found: no box changes a pixel."""


def corners_of(image: av.VideoFrame) -> list[int]:
    """The brightness of the corners, to the next ten, clockwise from the top left."""
    gray = image.to_ndarray(format="gray")
    height, width = gray.shape
    places = ((0.25, 0.25), (0.25, 0.75), (0.75, 0.75), (0.75, 0.25))
    return [round(int(gray[int(y * height), int(x * width)]), -1) for y, x in places]


def first_frame(path: Path) -> av.VideoFrame:
    with av.open(str(path)) as container:
        image: av.VideoFrame = next(container.decode(video=0))
        return image


def ffmpeg(*arguments: object) -> None:
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


# --- crop ---------------------------------------------------------------------------------------


@needs_cases
def test_the_clean_aperture_of_an_mp4_is_what_is_annotated(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = SHARED / "cases" / "clap_96x64_of_128x96.mp4"
    report = process(clip, tmp_path / "out", tiny_weights, detect=NOTHING)
    shown = first_frame(tmp_path / "out" / "annotated.mp4")
    assert (shown.width, shown.height) == (96, 64)
    assert report["source"]["size_wh"] == (96, 64)
    assert report["source"]["crop"] == {"left": 16, "top": 16, "right": 16, "bottom": 16}
    whole = first_frame(clip).to_ndarray(format="gray")[16:80, 16:112].astype(int)
    difference = np.abs(shown.to_ndarray(format="gray").astype(int) - whole)
    assert difference.mean() < 6


def with_pixel_crop(clip: Path, crop: Crop) -> Path:
    """Put the crop of a Matroska file in the place of its colour tags, and fill up the rest."""
    content = clip.read_bytes()
    colour = content.index(b"\x55\xb0")
    size = content[colour + 2] & 0x7F
    assert content[colour + 2] & 0x80
    sides = ((0x54AA, crop.bottom), (0x54BB, crop.top), (0x54CC, crop.left), (0x54DD, crop.right))
    elements = b"".join(struct.pack(">HBB", kind, 0x81, value) for kind, value in sides)
    rest = 3 + size - len(elements) - 2
    assert rest >= 0, "the colour tags are too short to hold a crop"
    filler = b"\xec" + bytes([0x80 | rest]) + bytes(rest)
    clip.write_bytes(content[:colour] + elements + filler + content[colour + 3 + size :])
    return clip


def matroska_with_colour_tags(path: Path, image: Image) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.color_primaries = context.color_trc = context.colorspace = 1
        context.color_range = 1
        for pts in range(5):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = pts
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("crop", [Crop(48, 32, 0, 0), Crop(0, 32, 48, 0), Crop(8, 4, 24, 12)])
def test_the_crop_of_a_matroska_file_is_applied(
    tmp_path: Path, tiny_weights: Path, crop: Crop
) -> None:
    clip = with_pixel_crop(matroska_with_colour_tags(tmp_path / "c.mkv", four_corners()), crop)
    process(clip, tmp_path / "out", tiny_weights, detect=NOTHING)
    shown = first_frame(tmp_path / "out" / "annotated.mp4")
    whole = first_frame(clip).to_ndarray(format="gray").astype(int)
    right, bottom = whole.shape[1] - crop.right, whole.shape[0] - crop.bottom
    expected = whole[crop.top : bottom, crop.left : right]
    found = shown.to_ndarray(format="gray").astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).mean() < 6


@given(content=st.binary(max_size=400), kind=st.sampled_from(["clip.mp4", "clip.mkv"]))
def test_no_header_however_damaged_fails(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, kind: str
) -> None:
    folder = tmp_path_factory.getbasetemp()
    sound = folder / f"sound-{kind}"
    if not sound.exists():
        write_clip(sound, [four_corners()])
    damaged = folder / f"damaged-{kind}"
    whole = sound.read_bytes()
    place = int.from_bytes(content[:3], "big") % len(whole)
    damaged.write_bytes(whole[:place] + content + whole[place + len(content) :])
    with av.open(str(sound)) as container:
        read_track_headers(damaged, container)
    lacks_mp4_index(damaged)


def test_a_size_beyond_all_files_is_no_error(tmp_path: Path) -> None:
    damaged = tmp_path / "clip.mp4"
    content = struct.pack(">I4s8x", 16, b"ftyp") + struct.pack(">I4sQ", 1, b"mdat", 2**64 - 1)
    damaged.write_bytes(content)
    assert not lacks_mp4_index(damaged)


# --- upright ------------------------------------------------------------------------------------


TURNED = {
    1: [40, 100, 160, 220],
    2: [100, 40, 220, 160],
    3: [160, 220, 40, 100],
    4: [220, 160, 100, 40],
    5: [40, 220, 160, 100],
    6: [220, 40, 100, 160],
    7: [160, 100, 40, 220],
    8: [100, 160, 220, 40],
}


@pytest.mark.parametrize("orientation", TURNED)
def test_a_picture_comes_upright_as_its_exif_data_asks(tmp_path: Path, orientation: int) -> None:
    image = first_frame(jpeg_with_orientation(tmp_path / "held.jpg", orientation))
    geometry = geometry_of(image, (image.width, image.height), None)
    ((_, shown),) = Display(geometry)([(None, image)])
    assert corners_of(shown) == TURNED[orientation]
    assert geometry.size_wh == (shown.width, shown.height)
    assert geometry.turned == (orientation >= 5)


def with_matrix(path: Path, matrix: tuple[float, float, float, float]) -> Path:
    """Overwrite the rotation part of the display matrix of an MP4 file's only track."""
    write_clip(path, [four_corners()] * 3)
    content = bytearray(path.read_bytes())
    tkhd = content.index(b"tkhd") + 4
    a, b, c, d = (round(value * 65536) for value in matrix)
    struct.pack_into(">iiiiii", content, tkhd + 40, a, b, 0, c, d, 0)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("matrix", "corners"),
    [
        ((0.0, 1.0, -1.0, 0.0), TURNED[6]),
        ((0.004, 1.0, -1.0, 0.004), TURNED[6]),
        ((1.0, 0.005, -0.005, 1.0), TURNED[1]),
        ((2.0, 0.0, 0.0, 2.0), TURNED[1]),
    ],
)
def test_a_matrix_that_is_nearly_a_quarter_turn_is_one(
    tmp_path: Path,
    tiny_weights: Path,
    matrix: tuple[float, float, float, float],
    corners: list[int],
) -> None:
    clip = with_matrix(tmp_path / "clip.mp4", matrix)
    report = process(clip, tmp_path / "out", tiny_weights, detect=NOTHING)
    assert corners_of(first_frame(tmp_path / "out" / "annotated.mp4")) == corners
    assert not report["output"]["notes"]


def test_a_picture_that_is_turned_by_anything_else_stays_and_a_warning_says_so(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = with_matrix(tmp_path / "clip.mp4", (0.7, 0.7, -0.7, 0.7))
    report = process(clip, tmp_path / "out", tiny_weights, detect=NOTHING)
    assert corners_of(first_frame(tmp_path / "out" / "annotated.mp4")) == TURNED[1]
    assert any("degrees or a skew" in note for note in report["output"]["notes"])


@needs_cases
def test_side_data_of_an_unknown_kind_is_ignored(tmp_path: Path, tiny_weights: Path) -> None:
    clip = SHARED / "cases" / "mjpeg_exif.avi"
    with pytest.raises(ValueError, match="not a valid Type"):
        first_frame(clip).side_data  # noqa: B018
    assert "EXIF" not in side_data_of(first_frame(clip))
    process(clip, tmp_path / "out", tiny_weights, detect=NOTHING)
    assert read_detections(tmp_path / "out")


# --- tracks -------------------------------------------------------------------------------------


@needs_ffmpeg
def test_a_cover_beside_a_film_is_not_the_clip(tmp_path: Path, tiny_weights: Path) -> None:
    film, cover = write_clip(tmp_path / "film.mp4", [four_corners()] * 9), tmp_path / "c.png"
    cv2.imwrite(str(cover), np.full((512, 512, 3), 250, np.uint8))
    both = ("-map", 1, "-map", 0, "-c", "copy", "-disposition:v:0", "attached_pic")
    ffmpeg("-i", film, "-i", cover, *both, tmp_path / "clip.mp4")
    process(tmp_path / "clip.mp4", tmp_path / "out", tiny_weights, detect=NOTHING)
    assert len(read_detections(tmp_path / "out")) == 9
    assert corners_of(first_frame(tmp_path / "out" / "annotated.mp4")) == TURNED[1]


@needs_ffmpeg
def test_sound_with_a_cover_has_no_video(tmp_path: Path, tiny_weights: Path) -> None:
    cover, clip = tmp_path / "c.png", tmp_path / "song.m4a"
    cv2.imwrite(str(cover), four_corners())
    sound = ("-f", "lavfi", "-i", "sine=d=1", "-i", cover, "-map", 0, "-map", 1)
    ffmpeg(*sound, "-c:a", "aac", "-c:v", "copy", "-disposition:v:0", "attached_pic", clip)
    with pytest.raises(InputError, match="only a cover picture"):
        process(clip, tmp_path / "out", tiny_weights, detect=NOTHING)


@needs_ffmpeg
def test_an_encrypted_clip_is_refused_as_that(tmp_path: Path, tiny_weights: Path) -> None:
    plain = write_clip(tmp_path / "plain.mp4", [four_corners()] * 5)
    scheme = ("-encryption_scheme", "cenc-aes-ctr", "-encryption_key", "7" * 32)
    clip = tmp_path / "clip.mp4"
    ffmpeg("-i", plain, "-c", "copy", *scheme, "-encryption_kid", "a" * 32, clip)
    with pytest.raises(InputError, match="its video is encrypted"):
        process(clip, tmp_path / "out", tiny_weights, detect=NOTHING)
    assert not (tmp_path / "out").exists()


def animation_with_alpha(path: Path) -> Path:
    """An AVIF whose alpha is a track of its own, enabled, and after the colours."""
    colours, alpha = path.with_name("colours.png"), path.with_name("alpha.png")
    cv2.imwrite(str(colours), four_corners())
    cv2.imwrite(str(alpha), 255 - four_corners())
    pictures = ("-loop", 1, "-r", 5, "-i", colours, "-loop", 1, "-r", 5, "-i", alpha, "-t", 1)
    formats = ("-filter:v:0", "format=yuv420p", "-filter:v:1", "format=gray")
    codec = ("-c:v", "libaom-av1", "-cpu-used", 8, "-usage", "realtime", "-crf", 20)
    ffmpeg(*pictures, "-map", 0, "-map", 1, *formats, *codec, path.with_suffix(".mkv"))
    with (
        av.open(str(path.with_suffix(".mkv"))) as source,
        av.open(str(path), "w", format="avif", options={"loop": "0"}) as target,
    ):
        copies = [target.add_stream_from_template(s, opaque=True) for s in source.streams.video]
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    content = bytearray(path.read_bytes())
    header = content.index(b"tkhd", content.index(b"tkhd") + 4)
    content[header + 7] |= 1
    path.write_bytes(content)
    return path


@needs_ffmpeg
def test_an_alpha_plane_is_not_taken_for_the_clip(tmp_path: Path, tiny_weights: Path) -> None:
    clip = animation_with_alpha(tmp_path / "clip.avif")
    process(clip, tmp_path / "out", tiny_weights, detect=NOTHING)
    assert len(read_detections(tmp_path / "out")) == 5
    assert corners_of(first_frame(tmp_path / "out" / "annotated.mp4")) == TURNED[1]


# --- fields -------------------------------------------------------------------------------------


def moving_bars(path: Path, order: str, codec: tuple[object, ...]) -> Path:
    """A clip whose fields show vertical bars at different moments; order: tff or bff."""
    bars = "geq=lum='255*lt(mod(X-6*N,32),16)':cb=128:cr=128"
    source = ("-f", "lavfi", "-i", f"nullsrc=s=128x96:r=50:d=0.8,{bars}")
    mode = {"tff": "interleave_top", "bff": "interleave_bottom"}[order]
    weave = ("-vf", f"tinterlace=mode={mode},setfield={order}")
    ffmpeg(*source, *weave, *codec, "-flags", "+ildct+ilme", path)
    return path


MPEG2 = ("-c:v", "mpeg2video", "-q:v", 2, "-pix_fmt", "yuv420p")
ORDERS = {"tff": "tt", "bff": "bb"}


def field_order(path: Path) -> str:
    """As ffprobe tells it of the stream."""
    wanted = ("-show_entries", "stream=field_order", "-of", "csv=p=0")
    command = ["ffprobe", "-v", "error", "-select_streams", "v", *wanted, str(path)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def combing(path: Path) -> float:
    """How much neighbouring rows of upright bars differ, in levels."""
    with av.open(str(path)) as container:
        pictures = [image.to_ndarray(format="gray") for image in container.decode(video=0)]
    return float(np.mean([np.abs(np.diff(rows.astype(float), axis=0)) for rows in pictures]))


@needs_ffmpeg
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("suffix", ["mpg", "mkv", "ts"])
def test_an_interlaced_clip_stays_so_with_its_order_and_a_warning(
    tmp_path: Path, tiny_weights: Path, order: str, suffix: str
) -> None:
    clip = moving_bars(tmp_path / f"clip.{suffix}", order, MPEG2)
    report = process(clip, tmp_path / "out", tiny_weights, detect=NOTHING)
    annotated = tmp_path / "out" / "annotated.mp4"
    assert field_order(annotated) == ORDERS[order]
    assert any("--deinterlace auto" in note for note in report["output"]["notes"])
    assert first_frame(annotated).interlaced_frame
    assert len(read_detections(tmp_path / "out")) == 20
    assert combing(annotated) == pytest.approx(combing(clip), rel=0.1)


@needs_ffmpeg
@pytest.mark.parametrize("order", ORDERS)
def test_fields_become_whole_pictures_where_that_is_asked_for(
    tmp_path: Path, tiny_weights: Path, order: str
) -> None:
    clip = moving_bars(tmp_path / "clip.ts", order, MPEG2)
    wanted = {"detect": NOTHING, "deinterlace": "auto"}
    report = process(clip, tmp_path / "out", tiny_weights, **wanted)
    annotated = tmp_path / "out" / "annotated.mp4"
    assert field_order(annotated) in ("progressive", "unknown")
    assert not report["output"]["notes"]
    assert not first_frame(annotated).interlaced_frame
    assert len(read_detections(tmp_path / "out")) == 20
    assert combing(annotated) < 0.1 * combing(clip)


@needs_ffmpeg
def test_whole_pictures_do_not_depend_on_where_segments_begin(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = moving_bars(tmp_path / "clip.ts", "tff", (*MPEG2, "-g", "5"))
    wanted = {"detect": NOTHING, "deinterlace": "auto", "encode": EncodeOptions(crf=0)}
    process(clip, tmp_path / "whole", tiny_weights, **wanted)
    report = process(clip, tmp_path / "cut", tiny_weights, segment_seconds=0.2, **wanted)
    assert report["segments"]["number"] > 2
    for whole, cut in zip(frames_of(tmp_path / "whole"), frames_of(tmp_path / "cut"), strict=True):
        np.testing.assert_array_equal(whole, cut)


def frames_of(output_dir: Path) -> list[Image]:
    with av.open(str(output_dir / "annotated.mp4")) as container:
        return [image.to_ndarray(format="gray") for image in container.decode(video=0)]


@needs_ffmpeg
def test_progressive_clips_are_not_touched_by_deinterlacing(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [four_corners()] * 5)
    plain = process(clip, tmp_path / "a", tiny_weights, detect=NOTHING)
    process(clip, tmp_path / "b", tiny_weights, detect=NOTHING, deinterlace="auto")
    assert not plain["output"]["notes"]
    for left, right in zip(frames_of(tmp_path / "a"), frames_of(tmp_path / "b"), strict=True):
        np.testing.assert_array_equal(left, right)


# --- sizes --------------------------------------------------------------------------------------


@needs_ffmpeg
@pytest.mark.parametrize("suffix", ["ts", "h264", "flv"])
def test_a_clip_that_grows_in_its_first_seconds_has_the_larger_size(
    tmp_path: Path, tiny_weights: Path, suffix: str
) -> None:
    bare = tmp_path / "grows.h264"
    for size in ("96x64", "192x128"):
        source = ("-f", "lavfi", "-i", f"testsrc2=s={size}:r=25:d=0.4")
        codec = ("-c:v", "libx264", "-bf", 0, "-g", 5, "-pix_fmt", "yuv420p")
        ffmpeg(*source, *codec, tmp_path / f"{size}.h264")
        with bare.open("ab") as file:
            file.write((tmp_path / f"{size}.h264").read_bytes())
    clip = bare
    if suffix != "h264":
        clip = tmp_path / f"clip.{suffix}"
        ffmpeg("-framerate", 25, "-i", bare, "-c", "copy", clip)
    report = process(clip, tmp_path / "out", tiny_weights, detect=NOTHING)
    assert report["source"]["size_wh"] == (192, 128)
    assert any("size" in note for note in report["output"]["notes"])
    assert len(read_detections(tmp_path / "out")) == 20


@needs_ffmpeg
def test_a_clip_that_begins_smaller_than_its_header_says_has_the_declared_size(
    tmp_path: Path, tiny_weights: Path
) -> None:
    small = write_clip(tmp_path / "small.mkv", [four_corners()] * 5)
    content = small.read_bytes()
    width, height = content.index(b"\xb0\x81\x60"), content.index(b"\xba\x81\x40")
    changed = bytearray(content)
    changed[width + 2], changed[height + 2] = 192 - 1, 128 - 1
    clip = tmp_path / "clip.mkv"
    clip.write_bytes(changed)
    report = process(clip, tmp_path / "out", tiny_weights, detect=NOTHING)
    assert report["source"]["size_wh"] == (191, 127)
    assert any("191x127" in note for note in report["output"]["notes"])
