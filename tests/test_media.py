"""Whole runs on clips of many kinds: what becomes of the picture, the clock and the sound."""

from __future__ import annotations

import contextlib
import os
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.core.config import EncodeOptions
from pipeline.core.errors import InputError
from pipeline.frames.decode import VideoReader
from pipeline.media.frame import plane_rows
from pipeline.run.report_files import Report
from tests.conftest import gray, process, read_detections, video_times
from tests.recordings import (
    FULL,
    LIMITED,
    UNTAGGED,
    Image,
    Track,
    _track_packets,
    damage_packets,
    frames_of,
    moving_lights,
    record,
    record_with_tracks,
    since_first,
    times_of,
    tracks_of,
)

BT709, HDR = (LIMITED, 1, 1, 1), (LIMITED, 9, 16, 9)
CODECS = ("h264", "hevc", "av1", "vp9")


def noise(count: int, size_wh: tuple[int, int] = (128, 96)) -> list[Image]:
    """Pictures full of detail, too dark for the light detector."""
    random = np.random.default_rng(5)
    return [random.integers(0, 100, (size_wh[1], size_wh[0], 3), np.uint8) for _ in range(count)]


def luma(frame: av.VideoFrame) -> Image:
    return plane_rows(frame.planes[0])[:, : frame.width]


def tags_of(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Range, primaries, transfer and matrix; a range that is not given means limited."""
    range_ = max(LIMITED, frame.color_range)
    return range_, frame.color_primaries, frame.color_trc, frame.colorspace


def faults_of(report: Any) -> int:
    faults = report["source"]["faults"]
    return int(faults["broken_packets"] + faults["corrupt_frames"])


def languages_of(path: Path, kind: str) -> list[str | None]:
    with av.open(str(path)) as container:
        return [stream.language for stream in container.streams if stream.type == kind]


def remux_with_times(clip: Path, path: Path, pts: list[int]) -> Path:
    """The same packets in a file that shows them at other times, in milliseconds."""
    with av.open(str(clip)) as source, av.open(str(path), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        packets = (packet for packet in source.demux(video=0) if packet.size)
        for packet, time in zip(packets, pts, strict=True):
            packet.stream, packet.time_base = stream, Fraction(1, 1000)
            packet.pts = packet.dts = time
            container.mux(packet)
    return path


# Rotation


def corner_levels(image: Image) -> list[float]:
    """Mean brightness of the four corners, row by row."""
    rows, columns = (slice(0, 4), slice(-4, None)), (slice(0, 4), slice(-4, None))
    return [float(image[row, column].mean()) for row in rows for column in columns]


def picture_with_four_corners() -> Image:
    """A light in the top left corner, and another shade of dark in each of the others."""
    image = gray(20)
    image[:32, :32], image[:24, -24:], image[-24:, :24], image[-24:, -24:] = 255, 50, 80, 110
    return image


def displayed(image: Image, degrees: int, hflip: bool, vflip: bool) -> Image:
    """What a viewer sees: turned counter-clockwise, then mirrored."""
    turned = np.rot90(image, degrees // 90)
    return turned[:: -1 if vflip else 1, :: -1 if hflip else 1]


MIRRORINGS = [(False, False), (True, False), (False, True)]
"""Horizontally, vertically."""


@pytest.mark.parametrize(
    ("degrees", "hflip", "vflip", "suffix"),
    [
        *(
            (degrees, hflip, vflip, "mp4")
            for degrees in (0, 90, 180, 270)
            for hflip, vflip in MIRRORINGS
        ),
        (90, False, False, "mkv"),
        (180, True, False, "mkv"),
        (270, False, True, "mkv"),
    ],
)
def test_a_turned_clip_comes_out_upright_with_detections_in_displayed_pixels(
    tmp_path: Path, tiny_weights: Path, degrees: int, hflip: bool, vflip: bool, suffix: str
) -> None:
    clip = record(
        tmp_path / f"clip.{suffix}",
        [picture_with_four_corners()] * 3,
        configure=lambda s: s.set_display_rotation(degrees, hflip=hflip, vflip=vflip),
    )
    stored = luma(frames_of(clip)[0])
    process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(crf=1))
    frames = frames_of(tmp_path / "out" / "annotated.mp4")
    seen = displayed(stored, degrees, hflip, vflip)
    light_y, light_x = np.nonzero(seen > 200)

    assert [luma(frame).shape for frame in frames] == [seen.shape] * 3
    assert {frame.rotation for frame in frames} == {0}
    dark = [level < 200 for level in corner_levels(seen)]
    for frame in frames:
        found = np.array(corner_levels(luma(frame)))[dark]
        assert found == pytest.approx(np.array(corner_levels(seen))[dark], abs=4)
    for line in read_detections(tmp_path / "out"):
        assert line["detections"]
        for detection in line["detections"]:
            left, top, right, bottom = detection["xyxy"]
            assert light_x.min() <= (left + right) / 2 <= light_x.max() + 1
            assert light_y.min() <= (top + bottom) / 2 <= light_y.max() + 1


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_the_shape_of_pixels_turns_with_the_picture(
    tmp_path: Path, tiny_weights: Path, degrees: int
) -> None:
    def configure(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.set_display_rotation(degrees)

    clip = record(tmp_path / "clip.mp4", moving_lights(3), configure=configure)
    report = process(clip, tmp_path / "out", tiny_weights)
    expected = Fraction(3, 4) if degrees in (90, 270) else Fraction(4, 3)
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == expected
    assert report["source"]["rotation_degrees"] == degrees


@pytest.mark.parametrize("pix_fmt", ["yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le"])
def test_a_turned_clip_of_any_pixel_format_keeps_its_brightness_and_tags(
    tmp_path: Path, tiny_weights: Path, pix_fmt: str
) -> None:
    clip = record(
        tmp_path / "clip.mp4",
        [gray(100)] * 3,
        pix_fmt=pix_fmt,
        tags=BT709,
        configure=lambda s: s.set_display_rotation(90),
    )
    process(clip, tmp_path / "out", tiny_weights)
    frame = frames_of(tmp_path / "out" / "annotated.mp4")[0]
    assert tags_of(frame) == BT709
    assert luma(frame).shape == (128, 96)
    assert luma(frame).mean() == pytest.approx(16 + 100 * 219 / 255, abs=2)


def test_a_turned_full_range_clip_keeps_its_brightness(tmp_path: Path, tiny_weights: Path) -> None:
    clip = record(
        tmp_path / "clip.mp4",
        [gray(100)] * 3,
        pix_fmt="yuvj420p",
        tags=(FULL, 1, 1, 1),
        configure=lambda s: s.set_display_rotation(270),
    )
    process(clip, tmp_path / "out", tiny_weights)
    frame = frames_of(tmp_path / "out" / "annotated.mp4")[0]
    assert tags_of(frame) == (FULL, 1, 1, 1)
    assert luma(frame).mean() == pytest.approx(100, abs=2)


# The clock


@pytest.mark.parametrize(
    ("time_base", "step", "codec"),
    [
        *((Fraction(1, 1000), 10, codec) for codec in CODECS),
        (Fraction(1, 600), 7, "h264"),
        (Fraction(1001, 30000), 1, "hevc"),
        (Fraction(1, 90000), 901, "av1"),
        (Fraction(1, 90000), 901, "h264"),
    ],
    ids=str,
)
def test_uneven_frame_times_are_kept_to_the_tick(
    tmp_path: Path, tiny_weights: Path, time_base: Fraction, step: int, codec: str
) -> None:
    ticks = [step * index for index in (0, 1, 3, 10, 11, 50, 51, 80)]
    clip = record(tmp_path / "clip.mp4", moving_lights(8), time_base=time_base, pts=ticks)
    process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(codec=codec))
    output = tmp_path / "out" / "annotated.mp4"
    assert times_of(clip) == [tick * time_base for tick in ticks]
    assert times_of(output) == times_of(clip)
    assert [time for time, _ in video_times(output)] == times_of(clip)


@pytest.mark.parametrize(
    ("suffix", "rate"),
    [
        *((suffix, Fraction(30000, 1001)) for suffix in ("mp4", "mkv", "ts", "mov")),
        ("mp4", Fraction(24000, 1001)),
        ("mkv", Fraction(50)),
    ],
    ids=str,
)
def test_frame_times_of_every_rate_are_kept_to_the_tick(
    tmp_path: Path, tiny_weights: Path, suffix: str, rate: Fraction
) -> None:
    clip = record(tmp_path / f"clip.{suffix}", moving_lights(20), rate=rate)
    process(clip, tmp_path / "out", tiny_weights)
    assert times_of(tmp_path / "out" / "annotated.mp4") == times_of(clip)


def test_ratios_of_a_clip_are_plain_fractions_whatever_the_version_of_pyav(tmp_path: Path) -> None:
    reader = VideoReader(record(tmp_path / "clip.mp4", moving_lights(3), rate=Fraction(25)))
    info = reader.info
    reader.close()
    assert {type(info.time_base), type(info.frame_rate)} == {Fraction}
    assert type(info.sample_aspect_ratio) in (Fraction, type(None))


def test_the_shape_of_pixels_is_found_where_only_the_decoder_knows_it(tmp_path: Path) -> None:
    def configure(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)

    clip = record(tmp_path / "clip.mp4", moving_lights(3), configure=configure)
    content = clip.read_bytes()
    assert b"pasp" in content
    clip.write_bytes(content.replace(b"pasp", b"free"))  # The box of MP4 that says it too.
    with contextlib.closing(VideoReader(clip)) as reader:
        assert reader.info.sample_aspect_ratio == Fraction(4, 3)


def test_results_carry_the_times_of_the_source(tmp_path: Path, tiny_weights: Path) -> None:
    ticks = [0, 40, 75, 180]
    clip = record(tmp_path / "clip.mp4", moving_lights(4), time_base=Fraction(1, 1000), pts=ticks)
    process(clip, tmp_path / "out", tiny_weights)
    lines = read_detections(tmp_path / "out")
    assert [line["pts_seconds"] for line in lines] == [0.0, 0.04, 0.075, 0.18]


@pytest.mark.parametrize(
    ("codec", "last_duration"), [*((codec, 1920) for codec in CODECS), ("h264", 40), ("hevc", 97)]
)
def test_a_long_last_frame_stays_as_long(
    tmp_path: Path, tiny_weights: Path, codec: str, last_duration: int
) -> None:
    clip = record(
        tmp_path / "clip.mp4",
        moving_lights(10),
        time_base=Fraction(1, 1000),
        pts=[40 * index for index in range(10)],
        last_duration=last_duration,
    )
    process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(codec=codec))
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as container:
        assert container.duration == 1000 * (360 + last_duration)


@pytest.mark.parametrize("container_format", ["h264", "hevc"])
@pytest.mark.parametrize("bframes", [0, 2])
def test_an_elementary_stream_without_times_gets_times_that_grow(
    tmp_path: Path, tiny_weights: Path, container_format: str, bframes: int
) -> None:
    codec = {"h264": "libx264", "hevc": "libx265"}[container_format]
    clip = record(
        tmp_path / f"clip.{container_format}",
        moving_lights(30),
        codec=codec,
        container_format=container_format,
        options={"bf": str(bframes)},
    )
    process(clip, tmp_path / "out", tiny_weights)
    times = times_of(tmp_path / "out" / "annotated.mp4")
    assert len(times) == 30
    assert all(later - earlier == Fraction(1, 25) for earlier, later in pairwise(times))


@pytest.mark.parametrize(
    ("written", "repaired"),
    [([0, 40, 40, 120], 1), ([0, 40, 80, 80], 1), ([0, 40, 40, 40], 2)],
)
def test_times_that_do_not_grow_are_mended_and_counted(
    tmp_path: Path, tiny_weights: Path, written: list[int], repaired: int
) -> None:
    images = moving_lights(4)
    intact = record(tmp_path / "intact.mkv", images, options={"g": "1"})
    clip = remux_with_times(intact, tmp_path / "clip.mkv", written)
    report = process(clip, tmp_path / "out", tiny_weights)
    times = times_of(tmp_path / "out" / "annotated.mp4")
    assert len(times) == 4
    assert all(earlier < later for earlier, later in pairwise(times))
    assert report["source"]["faults"]["repaired_timestamps"] == repaired


def test_a_clock_that_leaps_further_than_mp4_can_keep_is_mended_and_counted(
    tmp_path: Path, tiny_weights: Path
) -> None:
    plain = record(tmp_path / "plain.mp4", moving_lights(8), options={"bf": "0"})
    month_ms = 30 * 24 * 3600 * 1000
    times = [40 * index + (month_ms if index >= 5 else 0) for index in range(8)]
    clip = remux_with_times(plain, tmp_path / "clip.mkv", times)
    report = process(clip, tmp_path / "out", tiny_weights)
    found = times_of(tmp_path / "out" / "annotated.mp4")
    assert found[:5] == [Fraction(time, 1000) for time in times[:5]]
    assert [time - found[5] for time in found[5:]] == [
        Fraction(time - times[5], 1000) for time in times[5:]
    ]
    assert 0 < found[5] - found[4] < 1
    assert report["source"]["faults"]["repaired_timestamps"] == 1


def test_joined_recordings_play_one_after_the_other(tmp_path: Path, tiny_weights: Path) -> None:
    first = record(tmp_path / "first.ts", moving_lights(20))
    clip = tmp_path / "clip.ts"
    clip.write_bytes(first.read_bytes() * 2)
    process(clip, tmp_path / "out", tiny_weights)
    times = times_of(tmp_path / "out" / "annotated.mp4")
    assert len(times) == 40
    assert times[-1] - times[0] > 1.5
    assert max(later - earlier for earlier, later in pairwise(times)) < 0.2


def test_sound_of_joined_recordings_goes_on_with_the_picture(
    tmp_path: Path, tiny_weights: Path
) -> None:
    first = record_with_tracks(tmp_path / "first.ts", [], [Track("aac")])
    clip = tmp_path / "clip.ts"
    clip.write_bytes(first.read_bytes() * 2)
    process(clip, tmp_path / "out", tiny_weights)
    times = times_of(tmp_path / "out" / "annotated.mp4")
    [sound] = tracks_of(tmp_path / "out" / "annotated.mp4", "audio")
    assert len(times) == 40
    assert len(sound) >= 2 * len(tracks_of(first, "audio")[0]) - 1
    assert all(earlier[0] < later[0] for earlier, later in pairwise(sound))
    assert float(sound[-1][0]) == pytest.approx(float(times[-1]), abs=0.2)


# Containers and codecs


@dataclass(frozen=True)
class Kind:
    codec: str
    suffix: str
    pix_fmt: str = "yuv420p"


KINDS = [
    Kind("mpeg4", "avi"),
    Kind("mjpeg", "avi", "yuvj420p"),
    Kind("rawvideo", "avi"),
    Kind("libvpx-vp9", "webm"),
    Kind("libx265", "mp4"),
    Kind("libsvtav1", "mkv"),
    Kind("libsvtav1", "mp4"),
    Kind("libx264", "mov"),
    Kind("libx264", "mkv"),
    Kind("libx264", "ts"),
    Kind("libx264", "flv"),
    Kind("prores_ks", "mov", "yuv422p10le"),
    Kind("mpeg2video", "mpg"),
    Kind("mpeg2video", "ts"),
    Kind("ffv1", "mkv"),
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind.codec}-{kind.suffix}")
def test_every_container_and_codec_gives_every_frame_at_its_time(
    tmp_path: Path, tiny_weights: Path, kind: Kind
) -> None:
    clip = record(
        tmp_path / f"clip.{kind.suffix}",
        moving_lights(30),
        codec=kind.codec,
        pix_fmt=kind.pix_fmt,
        tags=(FULL, 2, 2, 2) if kind.codec == "mjpeg" else UNTAGGED,
    )
    process(clip, tmp_path / "out", tiny_weights)
    times = times_of(tmp_path / "out" / "annotated.mp4")
    assert times == since_first(times_of(clip))
    assert [float(time) for time in times] == pytest.approx(
        [index / 25 for index in range(30)], abs=1e-3
    )
    cells = [
        {tuple(int(value / 8) for value in found["xyxy"][:2]) for found in line["detections"]}
        for line in read_detections(tmp_path / "out")
    ]
    assert cells == [{(index % 16, index // 16)} for index in range(30)]


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        *(("libx264", suffix) for suffix in ("mp4", "mkv", "ts")),
        ("libx265", "mp4"),
        ("libx265", "ts"),
        ("mpeg4", "mkv"),
    ],
)
def test_b_frames_come_in_the_order_in_which_they_are_seen(
    tmp_path: Path, tiny_weights: Path, codec: str, suffix: str
) -> None:
    def configure(stream: Any) -> None:
        stream.codec_context.max_b_frames = 3

    options = {"libx264": {"qp": "1", "preset": "fast"}, "libx265": {"preset": "fast"}}
    clip = record(
        tmp_path / f"clip.{suffix}",
        moving_lights(30),
        codec=codec,
        options=options.get(codec),
        configure=configure,
    )
    with av.open(str(clip)) as container:
        shown = [packet.pts for packet in container.demux(video=0) if packet.pts is not None]
    process(clip, tmp_path / "out", tiny_weights)
    assert shown != sorted(shown)
    assert times_of(tmp_path / "out" / "annotated.mp4") == since_first(times_of(clip))
    lines = read_detections(tmp_path / "out")
    columns = [int(line["detections"][0]["xyxy"][0] / 8) for line in lines]
    assert columns == [index % 16 for index in range(30)]


def test_b_frames_of_an_avi_all_come_in_order(tmp_path: Path, tiny_weights: Path) -> None:
    def configure(stream: Any) -> None:
        stream.codec_context.max_b_frames = 2

    clip = record(tmp_path / "clip.avi", moving_lights(30), codec="mpeg4", configure=configure)
    process(clip, tmp_path / "out", tiny_weights)
    times = times_of(tmp_path / "out" / "annotated.mp4")
    assert [later - earlier for earlier, later in pairwise(times)] == [Fraction(1, 25)] * 29


@pytest.mark.parametrize(
    ("codec", "num_frames"),
    [*((codec, 1) for codec in CODECS), ("hevc", 2), ("hevc", 3), ("av1", 2), ("vp9", 2)],
)
def test_a_clip_of_one_or_a_few_frames_is_enough(
    tmp_path: Path, tiny_weights: Path, codec: str, num_frames: int
) -> None:
    clip = record(tmp_path / "clip.mp4", moving_lights(num_frames))
    report = process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(codec=codec))
    assert report["output"]["num_frames"] == num_frames
    assert times_of(tmp_path / "out" / "annotated.mp4") == times_of(clip)


@pytest.fixture(scope="module")
def tagged_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("tagged") / "clip.mp4", moving_lights(30), tags=BT709)


@pytest.fixture(scope="module")
def in_each_codec(tagged_clip: Path, tiny_weights: Path) -> dict[str, tuple[Path, Report]]:
    """The annotated file and the report by codec."""
    results = {}
    for codec in CODECS:
        out = tagged_clip.parent / codec
        report = process(tagged_clip, out, tiny_weights, encode=EncodeOptions(codec=codec))
        results[codec] = out / "annotated.mp4", report
    return results


@pytest.mark.parametrize(
    ("codec", "tag"), [("h264", "avc1"), ("hevc", "hvc1"), ("av1", "av01"), ("vp9", "vp09")]
)
def test_every_output_codec_opens_under_the_tag_that_players_know(
    codec: str, tag: str, tagged_clip: Path, in_each_codec: dict[str, tuple[Path, Report]]
) -> None:
    output, report = in_each_codec[codec]
    with av.open(str(output)) as container:
        context = container.streams.video[0].codec_context
        assert (context.codec.canonical_name, context.codec_tag) == (codec, tag)
    assert [(frame.width, frame.height) for frame in frames_of(output)] == [(128, 96)] * 30
    assert times_of(output) == times_of(tagged_clip)
    assert report["output"]["codec"] == codec


@pytest.mark.parametrize("codec", CODECS)
def test_a_player_can_start_before_it_has_the_whole_file(
    codec: str, in_each_codec: dict[str, tuple[Path, Report]]
) -> None:
    content = in_each_codec[codec][0].read_bytes()
    names, start = [], 0
    while start < len(content):
        names.append(content[start + 4 : start + 8])
        start += int.from_bytes(content[start : start + 4], "big")
    assert names.index(b"moov") < names.index(b"mdat")


# Pixel formats, sizes and colours


@pytest.mark.parametrize(
    ("codec", "size_wh"),
    [*((codec, (127, 95)) for codec in CODECS), ("h264", (128, 95)), ("av1", (127, 96))],
)
def test_a_clip_of_odd_size_loses_no_pixel(
    tmp_path: Path, tiny_weights: Path, codec: str, size_wh: tuple[int, int]
) -> None:
    width, height = size_wh
    picture = gray(40, size_wh)
    picture[-8:, -8:] = 90
    clip = record(tmp_path / "clip.webm", [picture] * 5, codec="libvpx-vp9")
    process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(codec=codec, crf=10))
    frames = frames_of(tmp_path / "out" / "annotated.mp4")
    assert len(frames) == 5
    # H.264 and HEVC have no odd sizes in 4:2:0: one more row or column is the closest.
    assert width <= frames[0].width <= width + width % 2
    assert height <= frames[0].height <= height + height % 2
    before, after = luma(frames_of(clip)[0]), luma(frames[0])[:height, :width]
    assert np.abs(after.astype(int) - before).max() <= 12


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "tags"),
    [
        ("libx264", "yuv420p", UNTAGGED),
        ("libx264", "yuv420p", BT709),
        ("libx264", "yuv420p", HDR),
        ("libx264", "yuv420p10le", BT709),
        ("libx265", "yuv420p10le", UNTAGGED),
        ("libx265", "yuv420p10le", HDR),
        ("libx264", "yuv422p", UNTAGGED),
        ("libx264", "yuv444p", BT709),
        ("libx264", "nv12", UNTAGGED),
        ("libx265", "yuv422p10le", HDR),
    ],
    ids=str,
)
def test_every_pixel_format_becomes_8_bit_with_its_brightness_and_colour_tags(
    tmp_path: Path,
    tiny_weights: Path,
    codec: str,
    pix_fmt: str,
    tags: tuple[int, int, int, int],
) -> None:
    clip = record(tmp_path / "clip.mp4", [gray(100)] * 5, codec=codec, pix_fmt=pix_fmt, tags=tags)
    process(clip, tmp_path / "out", tiny_weights)
    source, frame = frames_of(clip)[0], frames_of(tmp_path / "out" / "annotated.mp4")[0]
    assert frame.format.name == "yuv420p"
    assert (frame.width, frame.height) == (128, 96)
    assert tags_of(frame) == tags_of(source)
    assert luma(frame).mean() == pytest.approx(16 + 100 * 219 / 255, abs=2)


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [("libx264", "mp4", "yuvj420p"), ("libx264", "mp4", "yuvj444p"), ("mjpeg", "avi", "yuvj422p")],
)
def test_full_range_stays_full_range(
    tmp_path: Path, tiny_weights: Path, codec: str, suffix: str, pix_fmt: str
) -> None:
    clip = record(
        tmp_path / f"clip.{suffix}",
        [gray(level) for level in (0, 60, 120)],
        codec=codec,
        pix_fmt=pix_fmt,
        tags=(FULL, 2, 2, 2),
    )
    process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(crf=5))
    frames = frames_of(tmp_path / "out" / "annotated.mp4")
    assert {frame.format.name for frame in frames} <= {"yuv420p", "yuvj420p"}
    assert {frame.color_range for frame in frames} == {FULL}
    assert [luma(frame).mean() for frame in frames] == pytest.approx([0, 60, 120], abs=2)


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [("libx264rgb", "mp4", "rgb24"), ("ffv1", "mkv", "bgr0"), ("png", "mov", "rgb24")],
)
def test_colours_of_an_rgb_recording_look_the_same(
    tmp_path: Path, tiny_weights: Path, codec: str, suffix: str, pix_fmt: str
) -> None:
    orange = gray(0)
    orange[:] = (150, 70, 20)
    clip = record(tmp_path / f"clip.{suffix}", [orange] * 3, codec=codec, pix_fmt=pix_fmt)
    process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(crf=5))
    frame = frames_of(tmp_path / "out" / "annotated.mp4")[0]
    assert frame.format.name in ("yuv420p", "yuvj420p")
    seen = frame.to_ndarray(format="rgb24").reshape(-1, 3).mean(axis=0)
    assert seen == pytest.approx([150, 70, 20], abs=6)


@pytest.mark.parametrize("codec", CODECS)
def test_colour_tags_reach_every_output_codec(
    codec: str, in_each_codec: dict[str, tuple[Path, Report]]
) -> None:
    assert {tags_of(frame) for frame in frames_of(in_each_codec[codec][0])} == {BT709}


@pytest.mark.parametrize(
    ("codec", "aspect"),
    [*((codec, Fraction(10, 11)) for codec in CODECS), ("h264", Fraction(4, 3))],
)
def test_the_shape_of_pixels_is_kept(
    tmp_path: Path, tiny_weights: Path, codec: str, aspect: Fraction
) -> None:
    def configure(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = aspect

    clip = record(tmp_path / "clip.mp4", moving_lights(3), configure=configure)
    process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(codec=codec))
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == aspect


def test_without_loss_in_the_encoder_only_boxes_and_tags_differ(
    tmp_path: Path, tiny_weights: Path
) -> None:
    images = noise(6)
    images[3][80:88, 64:72] = 255
    clip = record(tmp_path / "clip.mp4", images)
    process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(crf=0))
    before = [frame.to_ndarray() for frame in frames_of(clip)]
    after = [frame.to_ndarray() for frame in frames_of(tmp_path / "out" / "annotated.mp4")]
    same = [np.array_equal(one, other) for one, other in zip(before, after, strict=True)]
    assert same == [True, True, True, False, True, True]
    rows, _ = np.nonzero(before[3][:96] != after[3][:96])
    assert rows.min() >= 56
    assert rows.max() < 88


def test_a_change_of_size_in_mid_stream_keeps_every_frame(
    tmp_path: Path, tiny_weights: Path
) -> None:
    small = record(tmp_path / "small.ts", [gray(60, (64, 48))] * 10)
    large = record(tmp_path / "large.ts", [gray(60)] * 10, pts=list(range(10, 20)))
    clip = tmp_path / "clip.ts"
    clip.write_bytes(large.read_bytes() + small.read_bytes())
    report = process(clip, tmp_path / "out", tiny_weights)
    frames = frames_of(tmp_path / "out" / "annotated.mp4")
    assert [(frame.width, frame.height) for frame in frames] == [(128, 96)] * 20
    assert report["source"]["faults"]["resized_frames"] == 10


# Sound and subtitles


@pytest.mark.parametrize(
    ("suffix", "before", "after"),
    [
        ("mp4", [], [Track("aac")]),
        ("mp4", [Track("aac", "deu")], []),
        ("mp4", [Track("aac", "fra")], [Track("aac", "jpn")]),
        ("mkv", [], [Track("libopus"), Track("flac", "deu")]),
        ("mkv", [Track("ac3")], [Track("libmp3lame", "spa")]),
        ("mov", [], [Track("aac")]),
        ("mp4", [], []),
    ],
    ids=["after", "first", "both-sides", "opus-flac", "ac3-mp3", "mov", "none"],
)
def test_sound_is_copied_as_it_is_at_its_time(
    tmp_path: Path, tiny_weights: Path, suffix: str, before: list[Track], after: list[Track]
) -> None:
    clip = record_with_tracks(tmp_path / f"clip.{suffix}", before, after)
    report = process(clip, tmp_path / "out", tiny_weights)
    output = tmp_path / "out" / "annotated.mp4"
    assert len(tracks_of(output, "audio")) == len(before) + len(after)
    assert tracks_of(output, "audio") == tracks_of(clip, "audio")
    assert languages_of(output, "audio") == [track.language for track in before + after]
    assert times_of(output) == times_of(clip)
    assert report["output"]["notes"] == []


@pytest.mark.parametrize("num_frames", [1, 7, 20, 50])
def test_of_the_first_frames_only_the_sound_ends_with_the_picture(
    tmp_path: Path, tiny_weights: Path, num_frames: int
) -> None:
    clip = record_with_tracks(tmp_path / "clip.mp4", [], [Track("aac")])
    whole, [sound] = times_of(clip), tracks_of(clip, "audio")
    report = process(clip, tmp_path / "out", tiny_weights, num_frames=num_frames)
    output = tmp_path / "out" / "annotated.mp4"
    assert times_of(output) == whole[:num_frames]
    assert len(read_detections(tmp_path / "out")) == min(num_frames, len(whole))
    assert report["output"]["notes"] == []
    [cut] = tracks_of(output, "audio")
    if num_frames >= len(whole):
        assert cut == sound
    else:
        assert cut == [(time, content) for time, content in sound if time < whole[num_frames]]


def test_sound_of_a_transport_stream_stays_in_step(tmp_path: Path, tiny_weights: Path) -> None:
    clip = record_with_tracks(tmp_path / "clip.ts", [], [Track("aac")])
    process(clip, tmp_path / "out", tiny_weights)
    output = tmp_path / "out" / "annotated.mp4"
    [source], [copied] = tracks_of(clip, "audio"), tracks_of(output, "audio")
    assert len(copied) == len(source)
    # MP4 counts sound in samples, a transport stream in 1/90000 s.
    assert [float(time) for time, _ in copied] == pytest.approx(
        [float(time) for time, _ in source], abs=1e-4
    )
    assert times_of(output) == times_of(clip)


def test_damaged_sound_does_not_cost_the_picture(tmp_path: Path, tiny_weights: Path) -> None:
    clip = record_with_tracks(tmp_path / "clip.ts", [], [Track("aac")])
    content = bytearray(clip.read_bytes())
    header = bytes(tracks_of(clip, "audio")[0][3][1][:3])  # Of the fourth frame of AAC.
    at = -1
    for _ in range(4):
        at = content.index(header, at + 1)
    content[at : at + 2] = b"\x00\x00"
    clip.write_bytes(content)
    report = process(clip, tmp_path / "out", tiny_weights)
    [note] = report["output"]["notes"]
    assert "(audio): 1 damaged packet left out" in note
    [sound] = tracks_of(tmp_path / "out" / "annotated.mp4", "audio")
    assert len(sound) == 38
    assert len(frames_of(tmp_path / "out" / "annotated.mp4")) == 20


def test_a_track_that_is_encoded_does_not_change_the_others(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = record_with_tracks(tmp_path / "clip.mkv", [Track("wavpack")], [Track("libopus", "deu")])
    report = process(clip, tmp_path / "out", tiny_weights)
    assert len(report["output"]["notes"]) == 1
    output = tmp_path / "out" / "annotated.mp4"
    assert tracks_of(output, "audio")[1] == tracks_of(clip, "audio")[1]
    assert languages_of(output, "audio") == ["eng", "deu"]


def test_subtitles_of_an_mp4_are_copied(tmp_path: Path, tiny_weights: Path) -> None:
    clip = record_with_tracks(tmp_path / "clip.mp4", [], [Track("mov_text", "fra")])
    report = process(clip, tmp_path / "out", tiny_weights)
    output = tmp_path / "out" / "annotated.mp4"
    assert Counter(tracks_of(output, "subtitle")[0]) == Counter(tracks_of(clip, "subtitle")[0])
    assert languages_of(output, "subtitle") == ["fra"]
    assert report["output"]["notes"] == []


# Broken clips and what is no clip


@pytest.mark.parametrize(
    ("suffix", "part"), [("mp4", 0.3), ("mkv", 0.7), ("ts", 0.3), ("ts", 0.7), ("avi", 0.3)]
)
def test_a_truncated_clip_gives_what_is_left_of_it(
    tmp_path: Path, tiny_weights: Path, suffix: str, part: float
) -> None:
    whole = record(
        tmp_path / f"whole.{suffix}",
        noise(40),
        codec="mpeg4" if suffix == "avi" else "libx264",
        options={"g": "1"},
        configure=lambda s: (
            s.container.options.update(movflags="faststart") if suffix == "mp4" else None
        ),
    )
    clip = tmp_path / f"clip.{suffix}"
    clip.write_bytes(whole.read_bytes()[: int(part * whole.stat().st_size)])
    report = process(clip, tmp_path / "out", tiny_weights)
    times = times_of(tmp_path / "out" / "annotated.mp4")
    assert 40 * part - 4 <= len(times) <= 40 * part + 2
    assert times == times_of(whole)[: len(times)]
    assert report["output"]["num_frames"] == len(times)


def test_a_truncated_mp4_counts_the_packet_that_was_cut(tmp_path: Path, tiny_weights: Path) -> None:
    clip = record(
        tmp_path / "clip.mp4",
        noise(20),
        options={"g": "1"},
        configure=lambda s: s.container.options.update(movflags="faststart"),
    )
    with av.open(str(clip)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        cut = (packets[12].pos or 0) + packets[12].size // 2
    clip.write_bytes(clip.read_bytes()[:cut])
    report = process(clip, tmp_path / "out", tiny_weights)
    assert faults_of(report) >= 1
    assert report["output"]["num_frames"] in (12, 13)


@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        ("libx264", "mp4"),
        ("libx264", "mkv"),
        ("libx265", "mp4"),
        ("libvpx-vp9", "webm"),
        ("libsvtav1", "mkv"),
        ("mpeg4", "avi"),
    ],
)
def test_damaged_packets_are_counted_and_the_other_frames_keep_their_times(
    tmp_path: Path, tiny_weights: Path, codec: str, suffix: str
) -> None:
    options = {"libx265": {"x265-params": "log-level=error:lossless=1:keyint=1"}}
    clip = record(
        tmp_path / f"clip.{suffix}",
        noise(30),
        codec=codec,
        options=options.get(codec, {"g": "1"}),
    )
    times = times_of(clip)
    damage_packets(clip, [5, 6, 20])
    report = process(clip, tmp_path / "out", tiny_weights)
    left = times_of(tmp_path / "out" / "annotated.mp4")
    assert faults_of(report) >= 1
    assert set(times) - set(left) <= {times[5], times[6], times[20]}
    assert set(left) <= set(times)


@pytest.mark.parametrize("num_threads", [1, 8])
@pytest.mark.parametrize("damaged", [[5, 6, 20], [27], [29]], ids=str)
@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "libvpx-vp9"])
def test_a_damaged_packet_costs_no_other_frame_however_many_threads_decode(
    tmp_path: Path, codec: str, damaged: list[int], num_threads: int
) -> None:
    clip = record(tmp_path / "clip.mkv", noise(30), codec=codec, options={"g": "1"})
    intact = {time for index, time in enumerate(times_of(clip)) if index not in damaged}
    reader = VideoReader(damage_packets(clip, damaged), num_threads=num_threads)
    found = {frame.pts * frame.time_base for frame in reader}
    reader.close()
    assert intact <= found
    assert reader.faults.broken_packets + reader.faults.corrupt_frames >= 1


def index_to_the_front(clip: Path, path: Path) -> Path:
    """The same clip as a file that can be read although its end is cut off."""
    front = {"movflags": "faststart"}
    with av.open(str(clip)) as source, av.open(str(path), "w", options=front) as container:
        stream = container.add_stream_from_template(source.streams.video[0], opaque=True)
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", "mp4"), ("mpeg4", "avi"), ("libsvtav1", "mp4")]
)
def test_a_packet_that_was_cut_short_counts_once(tmp_path: Path, codec: str, suffix: str) -> None:
    clip = record(tmp_path / f"clip.{suffix}", noise(30), codec=codec)
    if suffix == "mp4":
        clip = index_to_the_front(clip, tmp_path / "front.mp4")
    with av.open(str(clip)) as container:
        packets = sorted((p.pos, p.size) for p in container.demux(video=0) if p.size)
    position, size = packets[20]
    os.truncate(clip, position + size // 2)
    reader = VideoReader(clip)
    assert len(list(reader)) in (20, 21)
    reader.close()
    assert (reader.faults.broken_packets, reader.faults.corrupt_frames) == (1, 0)


def test_a_clip_whose_first_packets_are_damaged_begins_with_the_first_whole_frame(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = record(tmp_path / "clip.mkv", noise(20), options={"g": "1"})
    times = times_of(clip)
    damage_packets(clip, [0, 1])
    report = process(clip, tmp_path / "out", tiny_weights)
    assert faults_of(report) >= 1
    assert set(times[2:]) <= set(times_of(tmp_path / "out" / "annotated.mp4")) <= set(times)


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def text_file(path: Path) -> None:
    path.write_text("not a clip\n" * 1000, encoding="utf-8")


def sound_alone(path: Path) -> None:
    with av.open(str(path), "w") as container:
        for packet in _track_packets(container, Track("aac")):
            container.mux(packet)


def half_without_index(path: Path) -> None:
    record(path, noise(20))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def all_packets_damaged(path: Path) -> None:
    damage_packets(record(path, noise(10)), list(range(10)))


def a_folder(path: Path) -> None:
    path.mkdir()


def missing_file(path: Path) -> None:
    assert not path.exists()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (empty_file, "not a video that can be read"),
        (text_file, "not a video that can be read"),
        (sound_alone, "has no video stream"),
        (half_without_index, "not a video that can be read"),
        (all_packets_damaged, "cannot decode any frame"),
        (a_folder, "not a regular file"),
        (missing_file, "no such file"),
    ],
)
def test_what_is_no_clip_is_refused_in_one_line_that_says_why(
    tmp_path: Path, tiny_weights: Path, make: Callable[[Path], None], reason: str
) -> None:
    clip = tmp_path / "clip.mp4"
    make(clip)
    with pytest.raises(InputError) as caught:
        process(clip, tmp_path / "out", tiny_weights)
    message = str(caught.value)
    assert "\n" not in message
    assert str(clip) in message
    assert reason in message
    assert not (tmp_path / "out").exists()


CONCAT = "ffconcat version 1.0\nfile {}\n"
HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.0,\n{}\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize("playlist", [CONCAT, HLS], ids=["concat", "hls"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.m3u8", "clip.ffconcat"])
def test_a_playlist_is_no_clip_though_its_target_is_one(
    tmp_path: Path, tiny_weights: Path, playlist: str, name: str
) -> None:
    record(tmp_path / "listed.ts", moving_lights(5))
    (tmp_path / name).write_text(playlist.format("listed.ts"), encoding="utf-8")
    with pytest.raises(InputError, match=r"it is a .* never opened: give the"):
        process(tmp_path / name, tmp_path / "out", tiny_weights)


@pytest.mark.parametrize("playlist", [CONCAT, HLS], ids=["concat", "hls"])
def test_a_playlist_cannot_make_the_run_call_another_machine(
    tmp_path: Path, tiny_weights: Path, playlist: str
) -> None:
    clip = tmp_path / "clip.mp4"
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}/listed.ts"
        clip.write_text(playlist.format(url), encoding="utf-8")
        with pytest.raises(InputError, match="not a video that can be read"):
            process(clip, tmp_path / "out", tiny_weights)
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()
