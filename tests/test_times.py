"""Whole runs on clips with uncommon time stamps: what a player shows, and when."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline.core.encode_options import CODECS, EncodeOptions
from pipeline.core.errors import EncodeError
from pipeline.frames.decode import VideoReader
from pipeline.frames.encode import VideoEncoder
from pipeline.media.cut import cut_clip
from pipeline.media.mux import verify
from pipeline.media.scan import scan_clip
from tests.conftest import info_of, process, read_detections
from tests.programs import needs_ffmpeg
from tests.recordings import (
    Track,
    moving_lights,
    record,
    record_with_tracks,
    since_first,
    times_of,
    tracks_of,
)

Retime = Callable[[Any, int], None]


def retimed(clip: Path, path: Path, change: Retime, options: dict[str, str] | None = None) -> Path:
    """The same packets with other times; change: is given each packet and its number."""
    with av.open(str(clip)) as source, av.open(str(path), "w", options=options or {}) as out:
        copies = {s.index: out.add_stream_from_template(s, opaque=True) for s in source.streams}
        numbers = dict.fromkeys(copies, 0)
        for packet in source.demux():
            if packet.size:
                index = packet.stream_index
                packet.stream = copies[index]
                change(packet, numbers[index])
                numbers[index] += 1
                out.mux(packet)
    return path


def shifted(seconds: float, kind: str = "") -> Retime:
    def change(packet: Any, _: int) -> None:
        if not kind or packet.stream.type == kind:
            ticks = round(seconds / packet.time_base)
            packet.pts += ticks
            packet.dts = packet.dts if packet.dts is None else packet.dts + ticks

    return change


def shown_by_ffprobe(path: Path) -> list[float]:
    """When each frame of the picture is shown, by another program's account."""
    command = ["ffprobe", "-v", "error", "-select_streams", "v:0", "-of", "json"]
    command += ["-show_entries", "frame=best_effort_timestamp_time", str(path)]
    found = subprocess.run(command, capture_output=True, check=True).stdout
    return [float(f["best_effort_timestamp_time"]) for f in json.loads(found)["frames"]]


def even(count: int, step: Fraction = Fraction(1, 25)) -> list[Fraction]:
    return [index * step for index in range(count)]


def sound_times(path: Path, number: int = 0) -> list[Fraction]:
    return [time for time, _ in tracks_of(path, "audio")[number]]


# Where time begins


@pytest.mark.parametrize("suffix", ["ts", "mp4", "mkv"])
@pytest.mark.parametrize("start", [180_000, 123_457, 410_130_000])
def test_a_clip_that_starts_late_begins_at_0(
    tmp_path: Path, tiny_weights: Path, suffix: str, start: int
) -> None:
    clip = record(
        tmp_path / f"clip.{suffix}",
        moving_lights(10),
        time_base=Fraction(1, 90000),
        pts=[start + 3600 * index for index in range(10)],
        last_duration=3600,
    )
    report = process(clip, tmp_path / "out", tiny_weights)
    source = times_of(clip)
    lines = read_detections(tmp_path / "out")
    assert source[0] > 1
    assert times_of(tmp_path / "out" / "annotated.mp4") == since_first(source)
    assert [line["pts_seconds"] for line in lines] == [
        round(float(time), 6) for time in since_first(source)
    ]
    tick = Fraction(report["source"]["source_time_base"])
    assert [line["pts"] * tick for line in lines] == source
    assert report["source"]["offset_seconds"] == float(source[0])
    assert report["source"]["duration_seconds"] == pytest.approx(0.4, abs=1e-3)


@needs_ffmpeg
def test_another_program_sees_the_same_times(tmp_path: Path, tiny_weights: Path) -> None:
    clip = record(
        tmp_path / "clip.ts",
        moving_lights(10),
        time_base=Fraction(1, 90000),
        pts=[410_130_000 + ticks for ticks in (0, 3600, 5000, 9000, 20000, 21000, 30000, 40000)]
        + [410_180_000, 410_190_000],
    )
    process(clip, tmp_path / "out", tiny_weights)
    source, result = (shown_by_ffprobe(path) for path in (clip, tmp_path / "out" / "annotated.mp4"))
    assert result == pytest.approx([time - source[0] for time in source], abs=1e-4)


@pytest.mark.parametrize(
    ("kind", "seconds"), [("video", 0.3), ("audio", 0.3), ("audio", 2.0)], ids=str
)
def test_sound_and_picture_stay_as_far_apart_as_they_were(
    tmp_path: Path, tiny_weights: Path, kind: str, seconds: float
) -> None:
    plain = record_with_tracks(tmp_path / "plain.mkv", [], [Track("libmp3lame")])
    late = retimed(plain, tmp_path / "late.mkv", shifted(seconds, kind))
    clip = retimed(late, tmp_path / "clip.mkv", shifted(1_700_000_000))
    process(clip, tmp_path / "out", tiny_weights)
    output = tmp_path / "out" / "annotated.mp4"
    apart = sound_times(clip)[0] - times_of(clip)[0]
    assert sound_times(output)[0] - times_of(output)[0] == pytest.approx(apart, abs=1e-3)
    assert min(sound_times(output)[0], times_of(output)[0]) == pytest.approx(0, abs=0.05)


def test_a_picture_that_begins_minutes_after_its_sound_begins_at_0(
    tmp_path: Path, tiny_weights: Path
) -> None:
    plain = record_with_tracks(tmp_path / "plain.mkv", [], [Track("libmp3lame")], num_frames=20)
    clip = retimed(plain, tmp_path / "clip.mkv", shifted(30, "video"))
    report = process(clip, tmp_path / "out", tiny_weights)
    assert times_of(tmp_path / "out" / "annotated.mp4") == even(20)
    assert any("before the picture" in note for note in report["output"]["notes"])


@pytest.mark.parametrize("first", [2**33 - 18_000, 2**33 - 144_000])
def test_a_clip_around_the_wrap_of_its_clock_is_shown_evenly(
    tmp_path: Path, tiny_weights: Path, first: int
) -> None:
    clip = record(
        tmp_path / "clip.ts",
        moving_lights(20),
        time_base=Fraction(1, 90000),
        pts=[first + 3600 * index for index in range(20)],
        options={"bf": "0"},
    )
    report = process(clip, tmp_path / "out", tiny_weights)
    assert times_of(tmp_path / "out" / "annotated.mp4") == even(20)
    assert report["source"]["faults"]["repaired_timestamps"] == 0


# Edit lists


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libvpx-vp9", "mpeg4"])
@pytest.mark.parametrize("flags", ["", "frag_keyframe+delay_moov"], ids=["plain", "fragments"])
def test_frames_before_an_edit_are_neither_shown_nor_counted_nor_missed(
    tmp_path: Path, tiny_weights: Path, codec: str, flags: str
) -> None:
    whole = record(tmp_path / "whole.mp4", moving_lights(30), codec=codec, options={"g": "30"})
    clip = retimed(
        whole, tmp_path / "clip.mp4", shifted(-0.4), {"movflags": flags} if flags else None
    )
    report = process(clip, tmp_path / "out", tiny_weights)
    lines = read_detections(tmp_path / "out")
    assert times_of(tmp_path / "out" / "annotated.mp4") == even(20)
    assert [int(line["detections"][0]["xyxy"][0] / 8) for line in lines] == [
        index % 16 for index in range(10, 30)
    ]
    assert report["output"]["notes"] == []
    assert report["source"]["duration_seconds"] == pytest.approx(0.8)


@pytest.mark.parametrize("num_frames", [1, 7])
def test_of_a_trimmed_clip_the_first_frames_are_the_first_shown(
    tmp_path: Path, tiny_weights: Path, num_frames: int
) -> None:
    whole = record(tmp_path / "whole.mp4", moving_lights(30), options={"g": "30"})
    clip = retimed(whole, tmp_path / "clip.mp4", shifted(-0.4))
    process(clip, tmp_path / "out", tiny_weights, num_frames=num_frames)
    assert times_of(tmp_path / "out" / "annotated.mp4") == even(num_frames)
    assert read_detections(tmp_path / "out")[0]["detections"][0]["xyxy"][0] // 8 == 10


# Joined recordings


def test_behind_a_join_sound_and_picture_stay_in_step(tmp_path: Path, tiny_weights: Path) -> None:
    second = record_with_tracks(tmp_path / "second.ts", [], [Track("mp2")], num_frames=15)
    first = retimed(
        record_with_tracks(tmp_path / "f.ts", [], [Track("mp2")]),
        tmp_path / "first.ts",
        shifted(0.7),
    )
    clip = tmp_path / "clip.ts"
    clip.write_bytes(first.read_bytes() + second.read_bytes())
    report = process(clip, tmp_path / "out", tiny_weights)
    output = tmp_path / "out" / "annotated.mp4"
    times, sounds = times_of(output), sound_times(output)
    assert len(times) == 35
    # The second recording is found by its first packet of sound and its first frame.
    apart = sound_times(second)[0] - times_of(second)[0]
    first_sounds = len(sound_times(first))
    assert sounds[first_sounds] - times[20] == pytest.approx(apart, abs=0.03)
    assert all(Fraction(3, 100) < b - a < Fraction(1, 10) for a, b in pairwise(times))
    lines = read_detections(tmp_path / "out")
    tick = Fraction(report["source"]["source_time_base"])
    assert [line["pts"] * tick for line in lines] == [*times_of(first), *times_of(second)]


# Times that are those of decoding


def decoded_times(packet: Any, _: int) -> None:
    packet.pts = packet.dts


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_frames_whose_times_are_those_of_decoding_are_shown_evenly(
    tmp_path: Path, tiny_weights: Path, suffix: str
) -> None:
    plain = record(tmp_path / "plain.mp4", moving_lights(60), options={"qp": "5", "preset": "fast"})
    clip = retimed(plain, tmp_path / f"clip.{suffix}", decoded_times)
    report = process(clip, tmp_path / "out", tiny_weights)
    times, lines = times_of(tmp_path / "out" / "annotated.mp4"), read_detections(tmp_path / "out")
    assert scan_clip(clip).timeline.reorder_depth > 0
    assert times == even(len(times))
    columns = [int(line["detections"][0]["xyxy"][0] / 8) for line in lines]
    whole = [index % 16 for index in range(60)]
    # MP4 hides the two that are decoded before 0: the first one, and that which is due after three.
    assert columns == (whole if suffix == "mkv" else whole[1:4] + whole[5:])
    assert report["source"]["faults"]["repaired_timestamps"] == 0


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_b_frames_of_an_avi_are_shown_evenly_from_0(
    tmp_path: Path, tiny_weights: Path, codec: str
) -> None:
    clip = record(
        tmp_path / "clip.avi",
        moving_lights(30),
        codec=codec,
        options={"qp": "5", "preset": "fast"} if codec == "libx264" else None,
        configure=lambda stream: setattr(stream.codec_context, "max_b_frames", 2),
    )
    report = process(clip, tmp_path / "out", tiny_weights)
    lines = read_detections(tmp_path / "out")
    assert times_of(tmp_path / "out" / "annotated.mp4") == even(30)
    assert [int(line["detections"][0]["xyxy"][0] / 8) for line in lines] == [
        index % 16 for index in range(30)
    ]
    assert report["source"]["faults"]["repaired_timestamps"] == 0


def test_frames_that_a_recorder_dropped_are_not_missing(tmp_path: Path, tiny_weights: Path) -> None:
    clip = record(
        tmp_path / "clip.avi",
        moving_lights(10),
        codec="mjpeg",
        pix_fmt="yuvj420p",
        pts=[3 * index for index in range(10)],
    )
    report = process(clip, tmp_path / "out", tiny_weights)
    assert report["source"]["num_frames_header"] > 10
    assert report["output"]["notes"] == []
    assert times_of(tmp_path / "out" / "annotated.mp4") == even(10, Fraction(3, 25))


# Clocks


@pytest.mark.parametrize("codec", CODECS)
def test_a_clock_of_nanoseconds_becomes_one_that_every_codec_can_keep(
    tmp_path: Path, tiny_weights: Path, codec: str
) -> None:
    seconds = [Fraction(0), Fraction(1, 25), Fraction(2, 25), Fraction(2), Fraction(15, 4)]
    clip = record(
        tmp_path / "clip.mp4",
        moving_lights(5),
        time_base=Fraction(1, 10**9),
        pts=[int(time * 10**9) for time in seconds],
        last_duration=10**8,
        options={"bf": "0"},
        configure=lambda s: s.container.options.update(video_track_timescale="1000000000"),
    )
    report = process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(codec=codec))
    assert report["source"]["source_time_base"] == "1/1000000000"
    assert times_of(tmp_path / "out" / "annotated.mp4") == seconds
    assert report["source"]["faults"]["repaired_timestamps"] == 0


@pytest.mark.parametrize("suffix", ["flv", "mkv"])
@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_a_rate_on_a_clock_of_milliseconds_is_that_of_the_frames(
    tmp_path: Path, tiny_weights: Path, suffix: str, codec: str
) -> None:
    clip = record(tmp_path / f"clip.{suffix}", moving_lights(60), rate=Fraction(30))
    report = process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(codec=codec))
    assert report["source"]["frame_rate"] == "30/1"
    times = times_of(tmp_path / "out" / "annotated.mp4")
    assert times == since_first(times_of(clip))


@pytest.mark.parametrize(
    ("codec", "rate", "message"),
    [("av1", 480, "240 frames per second, and this clip has 480")],
)
def test_a_rate_beyond_that_of_the_codec_is_one_line_before_the_first_frame(
    tmp_path: Path, tiny_weights: Path, codec: str, rate: int, message: str
) -> None:
    clip = record(tmp_path / "clip.mp4", moving_lights(5), rate=Fraction(rate))
    with pytest.raises(EncodeError, match=message) as caught:
        process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(codec=codec))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("codec", "side", "least"), [("hevc", 8, 16), ("av1", 2, 4)])
def test_a_side_below_that_of_the_codec_is_one_line_before_the_first_frame(
    tmp_path: Path, tiny_weights: Path, codec: str, side: int, least: int
) -> None:
    images = [image[:side, :side] for image in moving_lights(3)]
    clip = record(tmp_path / "clip.mkv", images, codec="ffv1")
    with pytest.raises(EncodeError, match=f"less than {least} px a side") as caught:
        process(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(codec=codec))
    assert "\n" not in str(caught.value)


def test_the_last_frame_lasts_as_the_one_before_where_the_file_does_not_say(
    tmp_path: Path, tiny_weights: Path
) -> None:
    plain = record(tmp_path / "plain.mkv", moving_lights(4), options={"bf": "0"})

    def bare(packet: Any, _: int) -> None:
        packet.duration = 0

    clip = retimed(plain, tmp_path / "clip.avi", bare)
    process(clip, tmp_path / "out", tiny_weights)
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as container:
        assert container.duration == 160_000


# Sound


def test_a_sound_packet_whose_time_repeats_moves_alone(tmp_path: Path, tiny_weights: Path) -> None:
    plain = record_with_tracks(tmp_path / "plain.mkv", [], [Track("libmp3lame")])
    repeats = {5, 12, 20}
    last: list[int] = [0]

    def repeat(packet: Any, number: int) -> None:
        if packet.stream.type == "audio":
            if number in repeats:
                packet.pts = packet.dts = last[0]
            last[0] = packet.pts

    clip = retimed(plain, tmp_path / "clip.mkv", repeat)
    process(clip, tmp_path / "out", tiny_weights)
    source, copied = sound_times(plain), sound_times(tmp_path / "out" / "annotated.mp4")
    assert len(source) == len(copied)
    for number, (theirs, ours) in enumerate(zip(source, copied, strict=True)):
        if number not in repeats:
            assert ours == pytest.approx(theirs, abs=1e-4)
        else:
            assert ours == pytest.approx(source[number - 1], abs=2e-3)


def test_sound_on_another_clock_begins_with_the_picture(tmp_path: Path, tiny_weights: Path) -> None:
    plain = record_with_tracks(tmp_path / "plain.mkv", [], [Track("libmp3lame")])
    clip = retimed(plain, tmp_path / "clip.mkv", shifted(1_700_000_000, "audio"))
    report = process(clip, tmp_path / "out", tiny_weights)
    [note] = report["output"]["notes"]
    output = tmp_path / "out" / "annotated.mp4"
    assert "unrelated to those of the picture" in note
    assert times_of(output) == even(20)
    assert sound_times(output)[0] == pytest.approx(0, abs=0.03)
    assert len(sound_times(output)) == len(sound_times(plain))


def test_a_second_sound_that_is_stored_later_ends_with_the_picture_too(
    tmp_path: Path, tiny_weights: Path
) -> None:
    plain = record_with_tracks(
        tmp_path / "plain.ts", [], [Track("mp2"), Track("mp2", "deu")], num_frames=20
    )
    content = plain.read_bytes()
    packets = [content[i : i + 188] for i in range(0, len(content), 188)]
    late = [p for p in packets if ((p[1] & 31) << 8) | p[2] == 0x102]
    others = [p for p in packets if ((p[1] & 31) << 8) | p[2] != 0x102]
    clip = tmp_path / "clip.ts"
    clip.write_bytes(b"".join(others + late))
    process(clip, tmp_path / "out", tiny_weights, num_frames=12)
    ends = [sound_times(tmp_path / "out" / "annotated.mp4", n)[-1] for n in (0, 1)]
    assert len(times_of(tmp_path / "out" / "annotated.mp4")) == 12
    assert ends == pytest.approx([Fraction(12, 25)] * 2, abs=0.06)


# Segments and the check of what was written


def test_segments_of_a_late_clip_are_those_of_one_that_begins_at_0(
    tmp_path: Path, tiny_weights: Path
) -> None:
    options = {"g": "10", "sc_threshold": "0"}
    plain = record(tmp_path / "plain.mkv", moving_lights(60), options=options)
    late = retimed(plain, tmp_path / "late.mkv", shifted(4557))
    segments = [cut_clip(scan_clip(clip), 0.8) for clip in (plain, late)]
    assert len(segments[0]) > 2
    assert [[(s.start_pts, s.end_pts) for s in found] for found in segments] == [
        [(s.start_pts, s.end_pts) for s in segments[0]]
    ] * 2
    for seconds, name in ((0.8, "many"), (60.0, "one")):
        process(late, tmp_path / name, tiny_weights, segment_seconds=seconds)
    assert read_detections(tmp_path / "many") == read_detections(tmp_path / "one")
    assert times_of(tmp_path / "many" / "annotated.mp4") == even(60)


def encoded(path: Path, pts: list[int]) -> VideoEncoder:
    encoder = VideoEncoder(path, info_of(), EncodeOptions())
    for value in pts:
        image = av.VideoFrame(128, 96, "yuv420p")
        encoder.encode(image, value, 1, Fraction(1, 25))
    encoder.flush()
    encoder.close()
    return encoder


def test_the_check_finds_a_frame_that_is_shown_at_another_time(tmp_path: Path) -> None:
    path = tmp_path / "video.mp4"
    encoder = encoded(path, [0, 1, 2, 5, 6])
    times = {index: pts * Fraction(1, 25) for index, pts in encoder.some_times()}
    assert set(times) == {0, 1, 2, 3, 4}
    verify(path, 5, 0.28, times)
    with pytest.raises(EncodeError, match=r"shows frame 3 at 0\.200000 s, where it was"):
        verify(path, 5, 0.28, {**times, 3: Fraction(3, 25)})


def test_the_check_counts_what_is_shown_not_what_is_stored(tmp_path: Path) -> None:
    whole = record(tmp_path / "whole.mp4", moving_lights(30), options={"g": "30"})
    clip = retimed(whole, tmp_path / "clip.mp4", shifted(-0.4))
    verify(clip, 20, 0.8)
    with pytest.raises(EncodeError, match="holds 20 frames where 30 were encoded"):
        verify(clip, 30, 1.2)


def test_of_long_clips_some_frames_are_compared_the_first_and_the_last_among_them(
    tmp_path: Path,
) -> None:
    found = encoded(tmp_path / "video.mp4", list(range(100))).some_times()
    assert found[0] == (0, 0)
    assert found[-1] == (99, 99)
    assert 10 < len(found) < 30


def ffmpeg(*arguments: object) -> None:
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


TEST_PICTURES = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.8")


@needs_ffmpeg
def test_frames_without_times_between_others_are_shown_evenly(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = tmp_path / "clip.mpg"
    ffmpeg(*TEST_PICTURES, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-bf", 0, clip)
    with av.open(str(clip)) as container:
        assert None in [packet.pts for packet in container.demux() if packet.size]
    process(clip, tmp_path / "out", tiny_weights)
    assert since_first(times_of(tmp_path / "out" / "annotated.mp4")) == even(20)


@needs_ffmpeg
def test_an_avi_with_empty_chunks_keeps_their_time_and_its_sound_in_step(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = tmp_path / "clip.avi"
    codecs = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-c:a", "aac")
    ffmpeg(*TEST_PICTURES, "-f", "lavfi", "-i", "sine=r=48000:d=0.8", *codecs, clip)
    with av.open(str(clip)) as container:
        chunks = [p.dts for p in container.demux(container.streams.video[0]) if p.size]
    assert chunks[:2] == [0, 2]
    process(clip, tmp_path / "out", tiny_weights)
    shown = times_of(tmp_path / "out" / "annotated.mp4")
    assert shown == [Fraction(chunk, 25) for chunk in chunks]
    assert sound_times(tmp_path / "out" / "annotated.mp4")[0] == 0


@needs_ffmpeg
def test_sound_that_mp4_refuses_at_the_very_end_costs_no_run(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = tmp_path / "clip.nut"
    codecs = ("-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "eac3")
    ffmpeg(*TEST_PICTURES, "-f", "lavfi", "-i", "sine=r=48000:d=0.8", *codecs, clip)
    report = process(clip, tmp_path / "out", tiny_weights)
    assert len(read_detections(tmp_path / "out")) == 20
    assert any("were left out: MP4 refused them" in note for note in report["output"]["notes"])


@needs_ffmpeg
def test_the_numbers_of_pictures_in_a_bare_dirac_stream_are_no_times(tmp_path: Path) -> None:
    clip = tmp_path / "clip.drc"
    make = ("ffmpeg", "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.4")
    subprocess.run([*make, "-c:v", "vc2", str(clip)], check=True, capture_output=True)
    reader = VideoReader(clip)
    times = [frame.pts * frame.time_base for frame in reader]
    reader.close()
    assert times == [Fraction(index, 25) for index in range(10)]
