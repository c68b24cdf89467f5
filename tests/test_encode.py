"""The encoder refuses what it cannot do, and a finished file is checked for what it holds."""

from __future__ import annotations

import contextlib
import os
from fractions import Fraction
from pathlib import Path

import av
import pytest

from pipeline.core.encode_options import CODECS, MOST_CRF, PRESETS, EncodeOptions
from pipeline.core.errors import EncodeError, InputError, UsageError
from pipeline.core.machine import thread_ids
from pipeline.frames.codecs import encoder_settings
from pipeline.frames.encode import VideoEncoder, require_decodable
from pipeline.media.mux import SourceStreams, mux, verify
from tests.conftest import gray, info_of, process, write_clip
from tests.recordings import damage_packets

TIME_BASE = Fraction(1, 25)


def image(level: int = 60, size_wh: tuple[int, int] = (128, 96)) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(gray(level, size_wh), format="rgb24")
    return frame.reformat(format="yuv420p")


def clip_of(path: Path, num_frames: int) -> Path:
    return write_clip(path, [gray(60)] * num_frames)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("num_frames", [1, 2, 30])
def test_every_frame_that_goes_in_is_in_the_file(
    tmp_path: Path, codec: str, num_frames: int
) -> None:
    path = tmp_path / "video.mp4"
    encoder = VideoEncoder(path, info_of(), EncodeOptions(codec=codec))
    for index in range(num_frames):
        encoder.encode(image(), index, 1, TIME_BASE)
    encoder.flush()
    encoder.close()
    assert encoder.num_frames == num_frames
    verify(path, num_frames, num_frames / 25)


def encoded(path: Path, levels: list[int], options: EncodeOptions) -> Path:
    encoder = VideoEncoder(path, info_of(), options)
    for index, level in enumerate(levels):
        encoder.encode(image(level), index, 1, TIME_BASE)
    encoder.flush()
    encoder.close()
    return path


@pytest.mark.parametrize("codec", CODECS)
def test_a_track_that_a_decoder_takes_is_let_through(tmp_path: Path, codec: str) -> None:
    options = EncodeOptions(codec=codec)
    path = encoded(tmp_path / "video.mp4", list(range(30)), options)
    require_decodable(path, options, 30)


@pytest.mark.parametrize("codec", CODECS)
def test_joining_without_decoders_gives_the_file_that_it_gives_with_them(
    tmp_path: Path, codec: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = encoded(tmp_path / "video.mp4", [20, 40, 60], EncodeOptions(codec=codec))
    mux([track], tmp_path / "without.mp4", SourceStreams(track))
    for name in ("open_header", "open_written"):
        monkeypatch.setattr(f"pipeline.media.mux.{name}", lambda path, *_: av.open(str(path)))
    mux([track], tmp_path / "with.mp4", SourceStreams(track))
    assert (tmp_path / "without.mp4").read_bytes() == (tmp_path / "with.mp4").read_bytes()


@pytest.mark.parametrize(("codec", "damaged"), [*((codec, 0) for codec in CODECS), ("av1", 8)])
def test_a_track_that_no_decoder_takes_is_an_error_that_says_what_to_try(
    tmp_path: Path, codec: str, damaged: int
) -> None:
    options = EncodeOptions(codec=codec)
    path = encoded(tmp_path / "video.mp4", list(range(0, 90, 10)), options)
    damage_packets(path, [damaged])
    with pytest.raises(EncodeError, match=r"cannot be decoded \(.*--crf, --preset or --codec"):
        require_decodable(path, options, 9)


def test_what_svt_av1_makes_of_a_flash_at_crf_1_is_not_taken_for_a_result(
    tmp_path: Path, tiny_weights: Path
) -> None:
    levels = [20] * 8 + [47] * 9
    options = EncodeOptions(codec="av1", crf=1)
    path = encoded(tmp_path / "video.mp4", levels, options)
    with (
        contextlib.suppress(av.FFmpegError),
        av.open(str(path)) as container,
    ):
        if len([*container.decode(video=0)]) == len(levels):
            pytest.skip("this SVT-AV1 makes it right")
    clip = write_clip(tmp_path / "clip.mp4", [gray(level) for level in levels])
    with pytest.raises(EncodeError, match="the output of libsvtav1 cannot be decoded"):
        process(clip, tmp_path / "out", tiny_weights, encode=options)
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="needs the scheduler of Linux")
@pytest.mark.parametrize("codec", CODECS)
def test_no_thread_becomes_a_real_time_one(tmp_path: Path, codec: str) -> None:
    before = thread_ids()
    encoder = VideoEncoder(
        tmp_path / "video.mp4", info_of(), EncodeOptions(codec=codec), num_threads=2
    )
    encoder.encode(image(), 0, 1, TIME_BASE)
    workers = thread_ids() - before
    policies = set()
    for thread_id in {0, *workers}:
        with contextlib.suppress(ProcessLookupError):  # It has ended.
            policies.add(os.sched_getscheduler(thread_id))
    encoder.flush()
    encoder.close()
    assert policies == {os.SCHED_OTHER}
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.parametrize("codec", CODECS)
def test_every_preset_and_the_highest_crf_are_those_of_the_encoder(
    tmp_path: Path, codec: str
) -> None:
    for preset in PRESETS[codec]:
        options = EncodeOptions(codec=codec, preset=preset, crf=MOST_CRF[codec])
        VideoEncoder(tmp_path / "video.mp4", info_of(), options).abandon()


@pytest.mark.parametrize("codec", CODECS)
def test_what_the_encoder_does_not_have_is_refused_before_the_first_frame(codec: str) -> None:
    with pytest.raises(
        UsageError, match=rf"'hurried' is not a preset of {codec}: .*{PRESETS[codec][-1]}"
    ):
        EncodeOptions(codec=codec, preset="hurried")
    most = MOST_CRF[codec]
    with pytest.raises(UsageError, match=rf"between 0 and {most} for {codec}, not {most + 1}"):
        EncodeOptions(codec=codec, crf=most + 1)


def test_an_encoder_that_refuses_its_options_is_named(tmp_path: Path) -> None:
    with pytest.raises(EncodeError, match=r"libx264 refuses .*--preset") as caught:
        VideoEncoder(tmp_path / "video.mp4", info_of((100_000, 16)), EncodeOptions())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("codec", CODECS)
def test_a_finer_crf_makes_a_larger_file(tmp_path: Path, codec: str) -> None:
    sizes = []
    for crf in (10, 45):
        path = tmp_path / f"{crf}.mp4"
        encoder = VideoEncoder(path, info_of(), EncodeOptions(codec=codec, crf=crf))
        for index in range(10):
            encoder.encode(image(20 * index), index, 1, TIME_BASE)
        encoder.flush()
        encoder.close()
        assert encoder_settings(EncodeOptions(codec=codec, crf=crf), 1)["crf"] == crf
        sizes.append(path.stat().st_size)
    assert sizes[0] > sizes[1]


def test_x264_leaves_partitions_out_that_pay_little_unless_a_preset_is_named(
    tmp_path: Path,
) -> None:
    for preset, partitions in ((None, "i4x4"), ("veryfast", None)):
        options = EncodeOptions(preset=preset)
        encoder = VideoEncoder(tmp_path / "video.mp4", info_of(), options)
        for i in range(3):
            encoder.encode(image(40 * i), i, 1, Fraction(1, 25))
        encoder.flush()
        encoder.close()
        assert encoder_settings(options, 1).get("partitions") == partitions
        # x264 leaves its settings in the stream: in P frames, 0x1 is i4x4 alone.
        said = (tmp_path / "video.mp4").read_bytes()
        assert (b"analyse=0x3:0x1 " in said) == (partitions is not None)


@pytest.mark.parametrize(
    ("codec", "preset"), [("h264", "slow"), ("hevc", "ultrafast"), ("av1", "10"), ("vp9", "5")]
)
def test_the_settings_tell_what_was_asked_for(tmp_path: Path, codec: str, preset: str) -> None:
    options = EncodeOptions(codec=codec, crf=30, preset=preset)
    VideoEncoder(tmp_path / "video.mp4", info_of(), options, num_threads=2).abandon()
    settings = encoder_settings(options, 2)
    assert (settings["crf"], settings["preset"], settings["threads"]) == (30, preset, 2)


def test_an_encoder_can_be_abandoned_at_any_time(tmp_path: Path) -> None:
    encoder = VideoEncoder(tmp_path / "video.mp4", info_of(), EncodeOptions())
    encoder.encode(image(), 0, 1, TIME_BASE)
    encoder.abandon()
    encoder.abandon()
    finished = VideoEncoder(tmp_path / "other.mp4", info_of(), EncodeOptions())
    finished.encode(image(), 0, 1, TIME_BASE)
    finished.flush()
    finished.close()
    finished.abandon()
    verify(tmp_path / "other.mp4", 1, 0.04)


def test_a_whole_file_passes_the_check(tmp_path: Path) -> None:
    verify(clip_of(tmp_path / "clip.mp4", 25), 25, 1.0)


@pytest.mark.parametrize("expected", [24, 26, 0])
def test_the_check_finds_a_wrong_number_of_frames(tmp_path: Path, expected: int) -> None:
    clip = clip_of(tmp_path / "clip.mp4", 25)
    with pytest.raises(EncodeError, match=f"holds 25 frames where {expected} were encoded"):
        verify(clip, expected, 1.0)


@pytest.mark.parametrize("end_seconds", [0.8, 1.2, 60.0])
def test_the_check_finds_a_wrong_duration(tmp_path: Path, end_seconds: float) -> None:
    clip = clip_of(tmp_path / "clip.mp4", 25)
    with pytest.raises(EncodeError, match=r"ends at 1\.00 s, its source at"):
        verify(clip, 25, end_seconds)


@pytest.mark.parametrize("content", [b"", b"not a video" * 100, None])
def test_the_check_finds_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(EncodeError, match=r"clip\.mp4 cannot be read back"):
        verify(path, 1, 1.0)


def test_the_check_finds_a_file_that_lost_its_end(tmp_path: Path) -> None:
    clip = clip_of(tmp_path / "clip.mp4", 25)
    clip.write_bytes(clip.read_bytes()[:-200])
    with pytest.raises(EncodeError, match="cannot be read back"):
        verify(clip, 25, 1.0)


def test_the_check_finds_a_file_without_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        sound = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
        sound.sample_rate = 48000
        for plane in sound.planes:
            plane.update(bytes(plane.buffer_size))
        container.mux([*stream.encode(sound), *stream.encode(None)])
    with pytest.raises(EncodeError, match="cannot be read back"):
        verify(path, 1, 1.0)


def test_joining_with_a_source_that_is_gone_says_so(tmp_path: Path) -> None:
    video = clip_of(tmp_path / "video.mp4", 5)
    with pytest.raises(InputError, match=r"gone\.mp4: no such file"):
        mux([video], tmp_path / "target.mp4", SourceStreams(tmp_path / "gone.mp4"))


def test_joining_into_a_folder_that_is_gone_is_an_encode_error(tmp_path: Path) -> None:
    video = clip_of(tmp_path / "video.mp4", 5)
    with pytest.raises(EncodeError, match=r"target\.mp4 could not be written"):
        mux([video], tmp_path / "gone" / "target.mp4")
