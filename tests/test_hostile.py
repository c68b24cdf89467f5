"""Footage and names made to do harm: refused in one line, or read without harm."""

from __future__ import annotations

import collections
import contextlib
import io
import json
import os
import re
import resource
import socket
import subprocess
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import openvino as ov
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.cli.commands import main
from pipeline.cli.spool import spool, spooled
from pipeline.core.config import LimitOptions
from pipeline.core.errors import InputError, PipelineError, UsageError
from pipeline.core.text import printable
from pipeline.core.work_folder import SPOOL_NAME
from pipeline.execution.journal import open_journal
from pipeline.frames.decode import VideoReader
from pipeline.model.stored_head import layout_json
from tests.commands import run
from tests.conftest import (
    RESULT_NAMES,
    TINY_LAYOUT,
    gray,
    light_detector,
    process,
    read_detections,
    with_light,
    without_progress,
    write_clip,
)
from tests.hostile import (
    MEMORY_MB,
    Outcome,
    mutated_files,
    outcomes,
    truncated_files,
)
from tests.recordings import (
    NUM_FRAMES,
    mutation_clips,
    small_clip,
)
from tests.traps import CANARY, NUM_OWN_FRAMES, OWN_FRAMES, playlists, write_canary

# Playlists, addresses and files that are none


@pytest.fixture(scope="module")
def canary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_canary(tmp_path_factory.mktemp("elsewhere"))


def test_playlists_and_addresses_lead_nowhere(
    tmp_path: Path, canary: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = {}
    with socket.create_server(("127.0.0.1", 0)) as listener:
        traps = playlists(tmp_path / "traps", canary, listener.getsockname()[1])
        for name, source in traps.items():
            out = tmp_path / "out" / name
            code = main(
                ["process", source, "--weights", str(tiny_weights), "--output-dir", str(out)]
            )
            said = capsys.readouterr()
            files = [path for path in out.rglob("*") if path.is_file()]
            leaks = [path.name for path in files if CANARY in path.read_bytes()]
            if name in OWN_FRAMES:
                fine = code == 0 and len(read_detections(out)) == NUM_OWN_FRAMES
            else:
                fine = code in (1, 2) and not files and said.err.count("\n") == 1
            if not fine or leaks or CANARY.decode() in said.out + said.err:
                wrong[name] = (code, said.err, leaks)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
    assert not wrong
    assert len(traps) >= 60
    assert not list(tmp_path.rglob("escaped.sh"))


def test_the_traps_are_real(tmp_path: Path, canary: Path) -> None:
    traps = playlists(tmp_path / "traps", canary, 1)
    for name, options in (("hls-as-m3u8", {}), ("ffconcat-as-mp4", {"safe": "0"})):
        with av.open(traps[name], options=options) as led_astray:
            assert len(list(led_astray.decode(video=0))) == 10


def test_a_regular_file_may_be_named_like_an_address(
    tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    clip = small_clip(tmp_path / "clip.mp4")
    for name in ("concat:clip.mp4", "data:clip", "pipe:0", "-", "synthetic", "a%d.mp4"):
        clip.rename(name)
        report = process(Path(name), tmp_path / "out", tiny_weights, overwrite=True)
        assert report["output"]["num_frames"] == NUM_FRAMES
        clip = tmp_path / name


def test_a_link_to_a_clip_is_a_clip(tmp_path: Path, tiny_weights: Path) -> None:
    (tmp_path / "link.mp4").symlink_to(small_clip(tmp_path / "clip.mp4"))
    report = process(tmp_path / "link.mp4", tmp_path / "out", tiny_weights)
    assert report["output"]["num_frames"] == NUM_FRAMES


def test_a_picture_is_read_from_a_regular_file_only(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "picture.png")
    usual = ["--weights", str(tiny_weights), "--output-dir", str(tmp_path / "out")]
    assert main(["process", "--image", str(tmp_path / "picture.png"), *usual]) == 1
    assert "not a regular file but a named pipe" in capsys.readouterr().err


# Limits


def sps_of_size(width_mbs: int, height_mbs: int) -> bytes:
    """An H.264 sequence parameter set (baseline) that claims a frame of so many macroblocks."""

    def ue(value: int) -> str:
        return "0" * ((value + 1).bit_length() - 1) + f"{value + 1:b}"

    bits = ue(0) + ue(0) + ue(2) + ue(1) + "0" + ue(width_mbs - 1) + ue(height_mbs - 1) + "11001"
    bits += "0" * (-len(bits) % 8)
    content = bytes([0x67, 66, 0xC0, 62]) + int(bits, 2).to_bytes(len(bits) // 8, "big")
    return re.sub(b"\0\0(?=[\0-\3])", b"\0\0\3", content)


def lying_clip(path: Path, honest_frames: int) -> Path:
    """Frames of 128x96, of which those after the first so many claim 16000x16000."""
    stream = path.with_name("honest.h264")
    images = [with_light((index, 3)) for index in range(8)]
    write_clip(stream, images, options={"profile": "baseline", "g": "1"})
    pictures = re.split(b"(?=\0\0\0\x01g)", stream.read_bytes())[1:]
    lie = b"\0\0\0\1" + sps_of_size(1000, 1000)
    pictures[honest_frames:] = [
        re.sub(b"\0\0\0\x01g.*?(?=\0\0\0?\x01)", lambda _: lie, picture, count=1, flags=re.DOTALL)
        for picture in pictures[honest_frames:]
    ]
    if honest_frames == 0:
        stream.write_bytes(b"".join(pictures))
    container_format = "mpeg" if path.suffix == ".mpg" else None
    # Not to fall for it here.
    limit = {"max_pixels": "1000000"}
    with (
        av.open(str(stream), options=limit) as source,
        av.open(str(path), "w", format=container_format) as out,
    ):
        track = out.add_stream_from_template(source.streams.video[0])
        for index, picture in enumerate(pictures):
            packet: Any = av.Packet(picture)
            packet.stream, packet.time_base = track, Fraction(1, 90000)
            packet.pts = packet.dts = 3600 * index
            packet.is_keyframe = True
            out.mux(packet)
    return path


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi", "flv", "mpg"])
def test_a_header_that_claims_a_huge_frame_is_refused_before_memory_is_taken(
    tmp_path: Path, suffix: str
) -> None:
    clip = lying_clip(tmp_path / f"clip.{suffix}", 0)
    before = peak_mb()
    with pytest.raises(InputError, match="16000x16000, larger than --max-input-size 8192x4320"):
        VideoReader(clip)
    assert peak_mb() - before < 200


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "ts", "avi"])
def test_a_change_to_a_huge_frame_takes_no_memory(tmp_path: Path, suffix: str) -> None:
    clip = lying_clip(tmp_path / f"clip.{suffix}", 4)
    before = peak_mb()
    with contextlib.suppress(InputError):  # Some are seen through on opening.
        reader = VideoReader(clip)
        assert len(list(reader)) == reader.faults.broken_packets == 4
        reader.close()
    assert peak_mb() - before < 200


def test_a_tampered_gif_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.gif", [gray(40)] * 3, codec="gif", pix_fmt="rgb8")
    content = bytearray(clip.read_bytes())
    content[6:10] = (20000).to_bytes(2, "little") * 2
    clip.write_bytes(content)
    with pytest.raises(InputError, match="--max-input-size"):
        VideoReader(clip)


@pytest.mark.parametrize(
    ("max_size_wh", "fits"),
    [((128, 96), True), ((96, 128), True), ((127, 97), False), ((200, 50), False)],
)
def test_the_largest_frame_is_taken_either_way_round(
    tmp_path: Path, max_size_wh: tuple[int, int], fits: bool
) -> None:
    clip = small_clip(tmp_path / "clip.mp4")
    limits = LimitOptions(max_size_wh=max_size_wh)
    if fits:
        VideoReader(clip, limits).close()
    else:
        with pytest.raises(InputError, match="its frames are 128x96"):
            VideoReader(clip, limits)


def clip_with_streams(path: Path, count: int) -> Path:
    with av.open(str(path), "w") as container:
        streams: list[Any] = [container.add_stream("mpeg4", rate=25) for _ in range(count)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for stream in streams:
            image = av.VideoFrame.from_ndarray(gray(40, (32, 32)), format="rgb24")
            container.mux(stream.encode(image))
            container.mux(stream.encode(None))
    return path


def test_more_streams_than_allowed_are_refused(tmp_path: Path) -> None:
    clip = clip_with_streams(tmp_path / "clip.mkv", 65)
    with pytest.raises(InputError, match="65 streams, more than --max-streams 64"):
        VideoReader(clip)
    VideoReader(clip, LimitOptions(max_streams=65)).close()


def test_a_frame_rate_beyond_reason_is_refused(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", [gray(40)] * 5, rate=1000)
    with pytest.raises(InputError, match=r"claims 1000 frames per second.*--max-frame-rate 999"):
        VideoReader(clip, LimitOptions(max_frame_rate=Fraction(999)))
    VideoReader(clip).close()


@pytest.mark.parametrize("time_scale", [1, 2**31 - 1, 2**32 - 1, 0])
@pytest.mark.parametrize("box", [b"mvhd", b"mdhd"])
def test_an_absurd_time_base_is_taken_or_refused(
    tmp_path: Path, tiny_weights: Path, box: bytes, time_scale: int
) -> None:
    clip = small_clip(tmp_path / "clip.mp4")
    content = bytearray(clip.read_bytes())
    at = content.index(box) + 4 + 12
    content[at : at + 4] = time_scale.to_bytes(4, "big")
    clip.write_bytes(content)
    try:
        report = process(clip, tmp_path / "out", tiny_weights)
        assert report["output"]["num_frames"] == NUM_FRAMES
    except PipelineError:
        assert not (tmp_path / "out").exists()


def test_frames_that_would_fill_the_memory_are_refused(tmp_path: Path, tiny_weights: Path) -> None:
    clip = write_clip(tmp_path / "clip.mkv", [gray(40, (1024, 768))] * 2)
    limits = LimitOptions(max_memory_mb=5)
    with pytest.raises(InputError, match=r"needs \d+ MB, more than --max-memory 5"):
        process(clip, tmp_path / "out", tiny_weights, limits=limits)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "options",
    [
        {"max_size_wh": (0, 100)},
        {"max_size_wh": (100_000, 100)},
        {"max_streams": 0},
        {"max_frame_rate": Fraction(0)},
        {"max_memory_mb": 0},
    ],
    ids=str,
)
def test_limits_that_allow_nothing_are_wrong_use(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        LimitOptions(**options)


def test_limits_are_options_of_the_command_line(
    tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = str(small_clip(tmp_path / "clip.mp4"))
    usual = ["--weights", str(tiny_weights), "--output-dir", str(tmp_path / "out")]
    for option in (["--max-input-size", "64x64"], ["--max-frame-rate", "24"]):
        assert main(["process", clip, *usual, *option]) == 1
        assert option[0] in capsys.readouterr().err


# Broken files


def assert_harmless(found: list[Outcome]) -> None:
    assert [outcome for outcome in found if not outcome.harmless] == []
    assert max(outcome.peak_mb for outcome in found) < MEMORY_MB


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        ("mp4", {}),
        ("mp4", {"movflags": "faststart"}),
        ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
        ("mov", {}),
        ("mkv", {}),
        ("webm", {}),
        ("avi", {}),
        ("ts", {}),
        ("flv", {}),
    ],
    ids=str,
)
def test_of_a_truncated_clip_what_could_be_decoded_is_kept(
    tmp_path: Path, tiny_weights: Path, suffix: str, options: dict[str, str]
) -> None:
    # With some detail: of files of a kilobyte or two FFmpeg often cannot tell what they are.
    clip = small_clip(tmp_path / f"clip.{suffix}", detail=100, **options)
    size = clip.stat().st_size
    in_header = [100 * number / size for number in (0, 1, 4, 8, 12, 16, 24, 32, 48, 64, 100, 200)]
    files = truncated_files(clip, tmp_path, [*in_header, *range(10, 101, 10)])
    found = outcomes(files, tiny_weights, tmp_path)
    assert_harmless(found)
    assert found[-1].num_frames == NUM_FRAMES
    counts = [outcome.num_frames for outcome in found[len(in_header) :]]
    assert counts == sorted(counts)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_mutated_files_give_frames_or_an_error_in_time_and_memory(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clips = mutation_clips(tmp_path)
    found = outcomes(mutated_files(clips, tmp_path, range(60)), tiny_weights, tmp_path)
    assert_harmless(found)
    kinds = collections.Counter(outcome.kind for outcome in found)
    assert len(found) == 60
    assert min(kinds["frames"], kinds["refused"]) > 6


def test_the_same_seed_makes_the_same_file(tmp_path: Path) -> None:
    clips = {name: small_clip(tmp_path / f"whole.{name}") for name in ("mkv", "ts")}
    first, second = (
        [path.read_bytes() for path in mutated_files(clips, tmp_path, range(30))] for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == 30


# Standard input


class Slow(io.RawIOBase):
    """A stream that gives a few bytes at a time, as a pipe may."""

    def __init__(self, content: bytes) -> None:
        self._left = content

    def read(self, size: int = -1) -> bytes:
        given, self._left = self._left[:7], self._left[7:]
        return given


def test_a_stream_becomes_a_file_to_the_byte(tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(5000)
    assert spool(Slow(content), tmp_path / "spooled") == 5000  # type: ignore[arg-type]
    assert (tmp_path / "spooled").read_bytes() == content


def test_a_stream_that_never_ends_is_refused(tmp_path: Path) -> None:
    with Path("/dev/zero").open("rb") as endless, pytest.raises(InputError, match="more than 3 MB"):
        spool(endless, tmp_path / "spooled", max_bytes=3_000_000)
    assert list(tmp_path.iterdir()) == []


def test_an_empty_stream_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="standard input is empty"):
        spool(io.BytesIO(), tmp_path / "spooled")
    assert list(tmp_path.iterdir()) == []


def test_a_stream_replaces_no_file(tmp_path: Path) -> None:
    (tmp_path / "kept").write_bytes(b"kept")
    with pytest.raises(InputError, match="exists already"):
        spool(io.BytesIO(b"other"), tmp_path / "kept")
    assert (tmp_path / "kept").read_bytes() == b"kept"


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    class Full(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"disk full: .* MB free, about .* MB needed"):
        spool(Full(), tmp_path / "spooled")
    assert list(tmp_path.iterdir()) == []


def test_a_clip_comes_through_a_pipe(tmp_path: Path, tiny_weights: Path) -> None:
    # An index at the end: no stream could be read from front to back.
    clip = small_clip(tmp_path / "clip.mp4")
    with subprocess.Popen(["cat", str(clip)], stdout=subprocess.PIPE) as sender:
        done = run("process", "-", "--weights", tiny_weights, cwd=tmp_path, stdin=sender.stdout)
    assert (done.returncode, without_progress(done.stderr)) == (0, "")
    out = tmp_path / "output" / SPOOL_NAME
    assert len(read_detections(out)) == NUM_FRAMES
    assert sorted(path.name for path in out.iterdir()) == RESULT_NAMES


def test_where_another_run_is_at_work_nothing_is_read(tmp_path: Path) -> None:
    stream, out = io.BytesIO(b"a clip"), tmp_path / "out"
    with (
        open_journal(out),
        pytest.raises(InputError, match="another run is writing there"),
        spooled(stream, out),
    ):
        pass
    assert stream.tell() == 0


def test_what_was_read_is_gone_afterwards_with_the_folder_made_for_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with spooled(io.BytesIO(b"a clip"), out) as path:
        assert path.read_bytes() == b"a clip"
    assert not out.exists()


def test_standard_input_cannot_be_tuned_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "-"]) == 2
    assert "give a file" in capsys.readouterr().err


# Names

NAMES = [
    b"two words.mp4",
    b"'quoted' \"twice\".mp4",
    b"[brackets] {braces} (x).mp4",
    b"100%d %s %%.mp4",
    b"-o.mp4",
    b"--overwrite",
    b"new\nline.mp4",
    b"tab\tand\rreturn.mp4",
    "naïve 映像 🎥.mp4".encode(),
    b"invalid \xff\xfe utf-8.mp4",
    b"\x1b[31mred\x1b]0;title\x07.mp4",
    "right\u202eto left.mp4".encode(),
    b"<script>alert(1)</script>.mp4".replace(b"/", b"\xe2\x88\x95"),
    b"&amp;<img src=x onerror=alert(1)>.mp4",
    b"$(touch owned);`id`|&.mp4",
    b"..mp4",
    b"...mp4",
    b"a" * 251 + b".mp4",
    b"b" * 255,
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_any_file_name_is_harmless(
    tmp_path: Path,
    tiny_weights: Path,
    name: bytes,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    small_clip(tmp_path / "made.mp4").rename(os.fsdecode(name))
    assert main(["process", "--weights", str(tiny_weights), "--", os.fsdecode(name)]) == 0
    again = ["process", "--weights", str(tiny_weights), "--conf", "0.4"]
    assert main([*again, f"./{os.fsdecode(name)}"]) == 1
    said = capsys.readouterr()
    assert "exists already" in said.err
    for line in (said.out + said.err).splitlines():
        assert line.isprintable()
    [out] = (tmp_path / "output").iterdir()
    assert len(read_detections(out)) == NUM_FRAMES
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img src=x" not in page
    assert "\x1b" not in page
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert report["source"]["name"] == os.fsdecode(name).encode("utf-8", "replace").decode()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([os.fsdecode(name), "output"])


HOSTILE_TEXT = (
    "<script>alert(1)</script>",
    "../../etc/passwd",
    "\x1b[31mred\x07 \u2028 \u202e",
    "\udcff lone surrogate",
    "x" * 5000,
)


@pytest.mark.parametrize("text", HOSTILE_TEXT, ids=lambda text: ascii(text)[:30])
def test_any_class_name_is_harmless(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    model = light_detector()
    layout = json.loads(layout_json(TINY_LAYOUT)) | {"class_names": [text, "shade"]}
    model.set_rt_info(json.dumps(layout), ["pipeline", "head_layout"])
    weights = tmp_path / "light.xml"
    ov.save_model(model, weights, compress_to_fp16=False)
    clip = small_clip(tmp_path / "clip.mp4")
    usual = ["--weights", str(weights), "--output-dir", str(tmp_path / "out")]
    code = main(["process", str(clip), *usual])
    said = capsys.readouterr()
    for line in (said.out + said.err).splitlines():
        assert line.isprintable()
    if code:  # A name that the model's own file cannot hold.
        assert "pipeline: " in said.err
        assert "unexpected" not in said.err
        return
    named = {
        detection["class_name"]
        for line in read_detections(tmp_path / "out")
        for detection in line["detections"]
    }
    assert named == {text}
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert main(["process", str(clip), *usual, "--overwrite", "--classes", "\x1b[31m"]) == 2
    assert capsys.readouterr().err.strip().isprintable()


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_hostile_metadata_is_harmless(
    tmp_path: Path, tiny_weights: Path, suffix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = tmp_path / f"clip.{suffix}"
    text = "<script>alert(1)</script> ../../x \x1b[31m invalid-here"
    with av.open(str(clip), "w") as container:
        container.metadata.update(title=text, comment=text, artist=text)
        stream: Any = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        stream.metadata.update(language="/..", handler_name=text, title=text)
        image = av.VideoFrame.from_ndarray(with_light((1, 1)), format="rgb24")
        container.mux(stream.encode(image))
        container.mux(stream.encode(None))
    content = clip.read_bytes()
    assert b"invalid-here" in content
    clip.write_bytes(content.replace(b"invalid-here", b"invalid-\xff\xfe\xc0\x80"))
    out = tmp_path / "out"
    usual = ["--weights", str(tiny_weights), "--output-dir", str(out)]
    assert main(["process", str(clip), *usual]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert all(line.isprintable() for line in said.out.splitlines())
    assert "<script" not in (out / "report.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [clip.name, "out"]


@pytest.mark.parametrize("arguments", [["tune", "a.mp4", "\x1b[31m"], ["\x1b[31m"]], ids=str)
def test_wrong_use_does_not_reach_the_terminal_raw(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert "\x1b" not in capsys.readouterr().err


def test_a_traceback_does_not_reach_the_terminal_raw(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = str(tmp_path / "\x1b]0;owned\udcff.mp4")
    assert main(["process", name, "--debug", "--output-dir", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert "Traceback" in said
    assert all(line.isprintable() for line in said.splitlines())


@given(st.text(st.characters(codec=None)))
def test_shown_text_is_printable_and_keeps_what_was(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    if text.isprintable():
        assert shown == text
