"""What else of a clip is in the result: covers, chapters, tags, subtitles, or named if it is not.

Clips are made, and results read, by the programs of FFmpeg. One of them makes several clips: it
takes longer to start than to do that.
"""

from __future__ import annotations

import contextlib
import json
import struct
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from pipeline.core.config import EncodeOptions, ProcessConfig, RedactOptions
from pipeline.frames.source import open_source, scan_source
from tests.programs import ffmpeg, needs_ffmpeg, probed, result_of

pytestmark = needs_ffmpeg

PICTURE = ("-f", "lavfi", "-i", "color=c=0x202020:s=128x96:r=25:d=1")
"""Nothing is found in it."""
H264 = ("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p")


def plain_clip(path: Path, *options: object) -> Path:
    ffmpeg(*PICTURE, *H264, *options, path)
    return path


def probed_file(path: Path, *show: str) -> dict[str, Any]:
    command = ["ffprobe", "-v", "error", *show, "-of", "json", str(path)]
    return dict(json.loads(subprocess.run(command, capture_output=True, check=True).stdout))


def linked(clip: Path, folder: Path) -> Path:
    """The same clip elsewhere, so that its result is there."""
    link = folder / clip.name
    link.symlink_to(clip)
    return link


def in_folders(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Where clips of these kinds can be made, each in a folder of its own."""
    clips = {suffix: folder / suffix / f"clip.{suffix}" for suffix in suffixes}
    for clip in clips.values():
        clip.parent.mkdir()
    return clips


@pytest.fixture(scope="module")
def covers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with covers and, by container and kind of cover, clips that have one."""
    folder = tmp_path_factory.mktemp("covers")
    one = ("-map", 1, "-frames:v", 1)
    second = ("-f", "lavfi", "-i", "testsrc2=s=64x48:d=0.04")
    pictures = {kind: folder / f"cover.{kind}" for kind in ("jpg", "png")}
    made: list[object] = [*PICTURE, *second, "-map", 0, *H264, folder / "plain.mp4"]
    for path in pictures.values():
        made += [*one, path]
    ffmpeg(*made)
    joined: list[object] = ["-i", folder / "plain.mp4"]
    for path in pictures.values():
        joined += ["-i", path]
    for number, (kind, path) in enumerate(pictures.items(), 1):
        for suffix in ("mkv", "mp4"):
            (folder / f"{suffix}-{kind}").mkdir()
        mime = {"jpg": "image/jpeg", "png": "image/png"}[kind]
        attach = ("-attach", path, "-metadata:s:t", f"mimetype={mime}")
        joined += ["-map", 0, "-c", "copy", *attach, folder / f"mkv-{kind}" / "clip.mkv"]
        joined += ["-map", 0, "-map", number, "-c", "copy", "-disposition:v:1", "attached_pic"]
        joined.append(folder / f"mp4-{kind}" / "clip.mp4")
    ffmpeg(*joined)
    return folder


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_a_cover_is_carried(
    covers: Path, tmp_path: Path, tiny_weights: Path, suffix: str, kind: str
) -> None:
    result, notes = result_of(covers / f"{suffix}-{kind}" / f"clip.{suffix}", tiny_weights)
    assert notes == []
    video, attached = probed(result, "v")
    assert attached["disposition"]["attached_pic"] == 1
    assert (video["nb_frames"], video["codec_name"]) == ("25", "h264")
    ffmpeg("-i", result, "-map", "0:v:1", "-c", "copy", tmp_path / f"out.{kind}")
    assert (tmp_path / f"out.{kind}").read_bytes() == (covers / f"cover.{kind}").read_bytes()


def test_a_second_video_track_is_carried_behind_the_annotated_one(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = tmp_path / "clip.mkv"
    second = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=1")
    ffmpeg(*PICTURE, *second, "-map", 0, "-map", 1, *H264, clip)
    result, notes = result_of(clip, tiny_weights)
    assert notes == []
    annotated, other = probed(result, "v")
    assert (annotated["width"], other["width"]) == (128, 64)
    assert (annotated["disposition"]["default"], other["disposition"]["default"]) == (1, 0)
    assert other["nb_frames"] == "10"


def test_a_second_video_track_that_mp4_cannot_carry_is_named(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = tmp_path / "clip.mkv"
    second = ("-f", "lavfi", "-i", "testsrc2=s=64x48:r=10:d=1")
    ffmpeg(*PICTURE, *second, "-map", 0, "-map", 1, *H264, "-c:v:1", "libvpx", clip)
    result, [note] = result_of(clip, tiny_weights)
    assert note.startswith("stream 1 (video, vp8) was left out")
    assert len(probed(result, "v")) == 1


CHAPTERS = """;FFMETADATA1
title=A title
artist=Someone
location=+48.1000+011.5000/
favourite=yes
[CHAPTER]
TIMEBASE=1/1000
START=0
END=400
title=First
[CHAPTER]
TIMEBASE=1/1000
START=400
END=1000
title=Zweites Stück
"""


@pytest.fixture(scope="module")
def with_chapters(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    clips = in_folders(tmp_path_factory.mktemp("chapters"), ("mkv", "mp4", "mov"))
    text = clips["mkv"].with_suffix(".txt")
    text.write_text(CHAPTERS, encoding="utf-8")
    created = ("-metadata", "creation_time=2020-01-02T03:04:05Z")
    making: list[object] = [*PICTURE, "-i", text]
    for clip in clips.values():
        making += ["-map_metadata", 1, "-map_chapters", 1, *H264, *created, clip]
    ffmpeg(*making)
    return clips


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov"])
def test_chapters_and_tags_are_carried(
    with_chapters: dict[str, Path], tiny_weights: Path, suffix: str
) -> None:
    result, notes = result_of(with_chapters[suffix], tiny_weights)
    found = probed_file(result, "-show_chapters", "-show_format")
    assert [
        (chapter["tags"]["title"], float(chapter["start_time"]), float(chapter["end_time"]))
        for chapter in found["chapters"]
    ] == [("First", 0.0, 0.4), ("Zweites Stück", 0.4, 1.0)]
    tags = found["format"]["tags"]
    assert (tags["title"], tags["artist"]) == ("A title", "Someone")
    assert tags["location"] == "+48.1000+011.5000/"
    assert tags["creation_time"] == "2020-01-02T03:04:05.000000Z"
    # MP4 and MOV files of FFmpeg do not keep the tag in the first place.
    lost = ["MP4 has no place for metadata, left out: FAVOURITE"]
    assert notes == (lost if suffix == "mkv" else [])


def test_chapters_end_with_the_frames_that_were_asked_for(
    with_chapters: dict[str, Path], tmp_path: Path, tiny_weights: Path
) -> None:
    result, _ = result_of(linked(with_chapters["mkv"], tmp_path), tiny_weights, num_frames=5)
    [chapter] = probed_file(result, "-show_chapters")["chapters"]
    assert float(chapter["end_time"]) == pytest.approx(0.2, abs=0.001)


@pytest.fixture(scope="module")
def with_timecode(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    clips = in_folders(tmp_path_factory.mktemp("timecode"), ("mov", "mp4", "mkv", "mxf"))
    making: list[object] = [*PICTURE]
    for suffix, clip in clips.items():
        codec = ("-c:v", "mpeg2video") if suffix == "mxf" else H264
        making += ["-map", 0, *codec, "-timecode", "01:02:03:04", clip]
    ffmpeg(*making)
    return clips


@pytest.mark.parametrize("suffix", ["mov", "mp4", "mkv", "mxf"])
def test_a_timecode_is_carried(
    with_timecode: dict[str, Path], tiny_weights: Path, suffix: str
) -> None:
    result, notes = result_of(with_timecode[suffix], tiny_weights)
    [video] = probed(result, "v")
    assert video["tags"]["timecode"] == "01:02:03:04"
    assert [note for note in notes if "stream" in note] == []


def test_language_title_and_role_of_tracks_are_carried(tmp_path: Path, tiny_weights: Path) -> None:
    clip = tmp_path / "clip.mkv"
    sound = ("-f", "lavfi", "-i", "sine=d=1")
    tags = ("-metadata:s:v", "language=fra", "-metadata:s:v", "title=Picture")
    sounds = ("-metadata:s:a:1", "language=deu", "-metadata:s:a:1", "title=Kommentar")
    roles = ("-disposition:a:0", 0, "-disposition:a:1", "default")
    ffmpeg(
        *(*PICTURE, *sound, *sound, "-map", 0, "-map", 1, "-map", 2, *H264, "-c:a", "aac"),
        *("-c:a:1", "libvorbis", *tags, *sounds, *roles, clip),
    )
    result, _ = result_of(clip, tiny_weights)
    [video] = probed(result, "v")
    first, second = probed(result, "a")
    assert video["tags"]["language"] == "fra"
    assert (second["tags"]["language"], second["codec_name"]) == ("deu", "aac")
    assert (first["disposition"]["default"], second["disposition"]["default"]) == (0, 1)


def test_attached_files_are_named(tmp_path: Path, tiny_weights: Path) -> None:
    font = tmp_path / "letters.ttf"
    font.write_bytes(b"not really a font")
    clip = plain_clip(
        *(tmp_path / "clip.mkv", "-attach", font),
        *("-metadata:s:t", "mimetype=application/x-truetype-font"),
    )
    _, [note] = result_of(clip, tiny_weights)
    assert note == "stream 1 (attachment, letters.ttf) was left out: MP4 does not support it"


def test_a_data_track_is_named(tmp_path: Path, tiny_weights: Path) -> None:
    text = tmp_path / "data.txt"
    text.write_bytes(b"0123456789" * 20)
    clip = tmp_path / "clip.ts"
    data = ("-f", "data", "-i", text, "-map", 0, "-map", 1, "-c:d", "copy")
    ffmpeg(*PICTURE, *data, *H264, "-f", "mpegts", clip)
    _, notes = result_of(clip, tiny_weights)
    assert [note for note in notes if note.startswith("stream 1 (data")]


# Subtitles

SRT = """1
00:00:00,100 --> 00:00:00,400
Hello <i>there</i>

2
00:00:00,500 --> 00:00:00,900
zwei
Zeilen ü
"""


@pytest.fixture(scope="module")
def with_subtitles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By the codec of their subtitles."""
    folder = tmp_path_factory.mktemp("subtitles")
    (folder / "text.srt").write_text(SRT, encoding="utf-8")
    making: list[object] = [*PICTURE, "-i", folder / "text.srt"]
    clips = {}
    for codec in ("srt", "ass", "webvtt", "text", "mov_text"):
        clips[codec] = folder / codec / ("clip.mp4" if codec == "mov_text" else "clip.mkv")
        clips[codec].parent.mkdir()
        making += ["-map", 0, "-map", 1, *H264, "-c:s", codec, "-metadata:s:s", "language=deu"]
        making.append(clips[codec])
    ffmpeg(*making)
    return clips


def shown_text(path: Path) -> str:
    return ffmpeg("-i", path, "-map", "0:s:0", "-f", "srt", "-").decode()


@pytest.mark.parametrize("codec", ["srt", "ass", "webvtt", "text"])
def test_subtitles_in_text_become_those_of_mp4(
    with_subtitles: dict[str, Path], tiny_weights: Path, codec: str
) -> None:
    result, [note] = result_of(with_subtitles[codec], tiny_weights)
    assert "was converted to mov_text" in note
    [stream] = probed(result, "s")
    assert (stream["codec_name"], stream["tags"]["language"]) == ("mov_text", "deu")
    lines = shown_text(result).splitlines()
    assert lines[1] == "00:00:00,100 --> 00:00:00,400"
    assert "there" in lines[2]
    assert lines[5:8] == ["00:00:00,500 --> 00:00:00,900", "zwei", "Zeilen ü"]


def test_subtitles_of_an_mp4_are_shown_as_before(
    with_subtitles: dict[str, Path], tiny_weights: Path
) -> None:
    clip = with_subtitles["mov_text"]
    result, notes = result_of(clip, tiny_weights)
    assert notes == []
    assert shown_text(result) == shown_text(clip)


def pgs_packets() -> bytes:
    """A file of Blu-ray subtitles: one display set that shows nothing."""

    def segment(ticks: int, kind: int, body: bytes) -> bytes:
        return b"PG" + struct.pack(">IIBH", ticks, 0, kind, len(body)) + body

    composition = struct.pack(">HHBHBBBB", 128, 96, 0x10, 0, 0x80, 0, 0, 0)
    sets = (segment(t, 0x16, composition) + segment(t, 0x80, b"") for t in (9000, 45000))
    return b"".join(sets)


def test_subtitles_in_pictures_are_named(tmp_path: Path, tiny_weights: Path) -> None:
    pictures = tmp_path / "pictures.sup"
    pictures.write_bytes(pgs_packets())
    clip = tmp_path / "clip.mkv"
    ffmpeg(*PICTURE, "-i", pictures, "-map", 0, "-map", 1, *H264, "-c:s", "copy", clip)
    result, [note] = result_of(clip, tiny_weights)
    assert note == "stream 1 (subtitle, pgssub) was left out: MP4 does not support it"
    assert probed(result, "s") == []


# Side data of the video


def test_stereo_and_light_levels_are_named(tmp_path: Path, tiny_weights: Path) -> None:
    clip = tmp_path / "clip.mkv"
    light = "log-level=error:max-cll=1000,400:master-display="
    light += "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,1)"
    stereo = ("-metadata:s:v", "stereo_mode=left_right")
    ffmpeg(*PICTURE, "-c:v", "libx265", "-x265-params", light, *stereo, clip)
    _, notes = result_of(clip, tiny_weights)
    assert [note for note in notes if note.startswith("metadata of the video")] == [
        "metadata of the video is left out: stereo 3D",
        "metadata of the video is left out: mastering display, content light level",
    ]


def with_sv3d(clip: Path) -> Path:
    """The same clip, said to show the world around the camera; its index is at its end."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(body), kind) + body

    projection = box(b"prhd", bytes(16)) + box(b"equi", bytes(20))
    sv3d = box(b"sv3d", box(b"svhd", b"\0\0\0\0test\0") + box(b"proj", projection))
    content = bytearray(clip.read_bytes())
    place = content.index(b"avc1", content.index(b"stsd")) - 4
    (size,) = struct.unpack_from(">I", content, place)
    content[place + size : place + size] = sv3d
    for kind in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"):
        at = content.index(kind, content.index(b"moov")) - 4
        (length,) = struct.unpack_from(">I", content, at)
        struct.pack_into(">I", content, at, length + len(sv3d))
    clip.write_bytes(content)
    return clip


def test_a_clip_of_360_degrees_is_named(tmp_path: Path, tiny_weights: Path) -> None:
    clip = with_sv3d(plain_clip(tmp_path / "clip.mp4"))
    _, notes = result_of(clip, tiny_weights)
    assert notes == ["metadata of the video is left out: spherical (360 degrees)"]


@pytest.fixture(scope="module")
def in_mpeg2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mpeg2")
    mpeg2 = ("-c:v", "mpeg2video", "-q:v", "3", "-pix_fmt", "yuv420p", folder / "plain.m2v")
    ffmpeg(*PICTURE, *H264, folder / "plain.mp4", *mpeg2)
    return folder


def with_captions(plain: Path, path: Path, first: int = 0) -> Path:
    """A clip in MPEG-2 with a pair of CEA-608 in the user data (ATSC A/53) of the pictures in it.

    first: the first of them that has some, in the order of the file.
    """
    pair = b"GA94\x03" + bytes([0x41, 0xFF, 0xFC, 0x94, 0x20, 0xFF])
    first_slice = b"\0\0\1\1"
    header, *pictures = plain.read_bytes().split(first_slice)
    with path.open("wb") as clip:
        clip.write(header)
        for number, picture in enumerate(pictures):
            captions = b"\0\0\1\xb2" + pair if number >= first else b""
            clip.write(captions + first_slice + picture)
    return path


@pytest.fixture(scope="module")
def captioned(in_mpeg2: Path) -> Path:
    clip = with_captions(in_mpeg2 / "plain.m2v", in_mpeg2 / "clip.m2v")
    assert number_with_captions(clip) == 25
    return clip


def number_with_captions(path: Path) -> int:
    frames = probed_file(path, "-select_streams", "v", "-show_frames")["frames"]
    kinds = [[data["side_data_type"] for data in f.get("side_data_list", ())] for f in frames]
    return sum(any("A53 Part 4" in kind for kind in found) for found in kinds)


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_closed_captions_are_carried(
    captioned: Path, tmp_path: Path, tiny_weights: Path, codec: str
) -> None:
    encode = EncodeOptions(codec=codec)
    result, notes = result_of(linked(captioned, tmp_path), tiny_weights, encode=encode)
    assert (number_with_captions(result), notes) == (25, [])


def test_closed_captions_that_begin_late_are_not_in_a_redacted_clip(
    in_mpeg2: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    clip = with_captions(in_mpeg2 / "plain.m2v", tmp_path / "clip.m2v", first=3)
    assert number_with_captions(clip) == 22
    redact = RedactOptions(covered=("light",))
    result, _ = result_of(clip, tiny_weights, redact=redact)
    assert number_with_captions(result) == 0


def test_closed_captions_that_a_codec_cannot_keep_are_named(
    captioned: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    encode = EncodeOptions(codec="vp9")
    _, [note] = result_of(linked(captioned, tmp_path), tiny_weights, encode=encode)
    assert note == (
        "closed captions in the video are left out with vp9: --codec h264 or hevc keeps them"
    )


@pytest.mark.parametrize(
    ("kind", "became"),
    [("c608", "was converted to mov_text"), ("ttml", "was left out: MP4 does not support it")],
)
def test_captions_and_ttml_in_tracks_are_named(
    captioned: Path, tmp_path: Path, tiny_weights: Path, kind: str, became: str
) -> None:
    clip, text = tmp_path / "clip.mov", tmp_path / "text.srt"
    text.write_text("1\n00:00:00,100 --> 00:00:00,600\nHello\n")
    if kind == "ttml":
        clip = tmp_path / "clip.mp4"
        ffmpeg(*PICTURE, "-i", text, *H264, "-c:s", "ttml", clip)
    else:
        graph = f"movie={captioned}[out0+subcc]"
        both = ("-i", captioned.with_name("plain.mp4"), "-f", "lavfi", "-i", graph)
        ffmpeg(*both, "-map", "0:v", "-map", "1:s", "-c", "copy", clip)
    result, [note] = result_of(clip, tiny_weights)
    assert note.startswith("stream 1 (subtitle")
    assert became in note
    assert len(probed(result, "v")) == 1


def creation_time(clip: Path, start: str | None = None) -> str | None:
    config = ProcessConfig(source=clip, output_dir=clip.parent, start=start)
    scan = scan_source(config)
    with contextlib.closing(open_source(config, 1, scan.timeline if scan else None)) as source:
        return source.info.creation_time


def test_the_time_of_the_first_frame_is_read_from_the_file(tmp_path: Path) -> None:
    utc = ("-metadata", "creation_time=2020-01-02T03:04:05.5Z")
    local = ("-metadata", "com.apple.quicktime.creationdate=2020-01-02T05:04:05+0200")
    clips = [tmp_path / f"{number}.mov" for number in range(3)]
    ffmpeg(
        *(*PICTURE, *H264, clips[0], *H264, *utc, clips[1]),
        *(*H264, *utc, *local, "-movflags", "use_metadata_tags", clips[2]),
    )
    # MOV has whole seconds.
    assert [creation_time(clip) for clip in clips] == [
        None,
        "2020-01-02T03:04:05.000+00:00",
        "2020-01-02T05:04:05.000+02:00",
    ]
    assert creation_time(clips[1], "0.4") == "2020-01-02T03:04:05.400+00:00"
