"""--start and --end: a slice of a clip is what a run of the whole clip gives there."""

from __future__ import annotations

import contextlib
import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import pytest

import pipeline
from pipeline import InputError, Interrupted, ProcessConfig, SyntheticOptions, UsageError
from pipeline.cli.commands import main
from pipeline.core.picture_sequence import PictureSequence
from pipeline.core.slices import Moment, Slice, read_moment
from pipeline.frames.source import open_source
from pipeline.media.frame import Frame
from pipeline.run.process import process_video
from tests.conftest import process, read_detections, video_times, with_light, write_clip
from tests.programs import ffmpeg, needs_ffmpeg
from tests.recordings import Track, numbered, record, record_with_tracks
from tests.resuming import KEYS, config_of, interrupted_at, results, run

NUM_FRAMES = 60
OPEN_GOP = {"x264-params": "keyint=12:min-keyint=12:bframes=3:open-gop=1:scenecut=0"}
RATE = Fraction(30000, 1001)
UNEVEN = [index * 3 + index % 2 for index in range(NUM_FRAMES)]

CLIPS: dict[str, dict[str, Any]] = {
    "b.mp4": {"options": OPEN_GOP},
    "b.mkv": {"options": OPEN_GOP, "rate": RATE},
    "b.ts": {"options": OPEN_GOP},
    "b.avi": {"options": OPEN_GOP},
    "b.264": {"options": OPEN_GOP},
    "uneven.mp4": {"options": {"g": "9", "bf": "0"}, "time_base": Fraction(1, 75), "pts": UNEVEN},
    "b.mpg": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "keys.swf": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "one-key.mp4": {"options": {"g": "1000"}},
}
PLACES = [(0, 1), (0, 60), (1, 17), (11, 12), (12, 40), (25, 60), (37, 49), (59, 60)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clips")


@pytest.fixture(scope="module")
def clip(folder: Path) -> Path:
    """60 numbered frames at 25 per second, a key frame at every tenth."""
    return write_clip(folder / "clip.mp4", [numbered(i) for i in range(60)], options=KEYS)


def made(folder: Path, name: str) -> Path:
    path = folder / name
    return path if path.exists() else record(path, [numbered(i) for i in range(60)], **CLIPS[name])


def taken(source: Path, start: object = None, end: object = None) -> list[Frame]:
    config = ProcessConfig(source=source, output_dir=source.parent, start=start, end=end)  # type: ignore[arg-type]
    with contextlib.closing(open_source(config, 1)) as opened:
        return list(opened.frames())


def facts(frame: Frame) -> tuple[int | None, int, bytes]:
    """What a frame of a slice has in common with that of the whole clip."""
    return (
        frame.source_pts,
        frame.duration,
        hashlib.md5(frame.image.to_ndarray().tobytes()).digest(),
    )


@pytest.mark.parametrize("name", CLIPS)
def test_a_slice_has_the_frames_that_the_clip_has_there(name: str, folder: Path) -> None:
    path = made(folder, name)
    whole = taken(path)
    assert len(whole) == NUM_FRAMES
    for start, end in PLACES:
        frames = taken(path, f"{start}f", f"{end}f")
        assert [facts(f) for f in frames] == [facts(f) for f in whole[start:end]]
        assert [f.index for f in frames] == list(range(end - start))
        first = whole[start].pts
        assert [f.pts for f in frames] == [f.pts - first for f in whole[start:end]]


@pytest.mark.parametrize("name", ["b.mkv", "uneven.mp4"])
def test_times_and_frame_numbers_name_the_same_frames(name: str, folder: Path) -> None:
    path = made(folder, name)
    whole = taken(path)
    start, end = (round(float(whole[index].pts_seconds), 6) for index in (13, 41))
    assert [facts(f) for f in taken(path, start, end)] == [facts(f) for f in whole[13:41]]
    between = start - 0.004  # A time between two frames.
    assert [facts(f) for f in taken(path, between, f"0:0{end}")] == [facts(f) for f in whole[13:41]]


@needs_ffmpeg
@pytest.mark.parametrize("name", ["b.mp4", "b.mkv", "b.ts", "b.avi"])
def test_ffmpeg_selects_the_same_frames(name: str, folder: Path) -> None:
    path = made(folder, name)
    chosen = ["-vf", "select=between(n\\,25\\,47)", "-fps_mode", "passthrough"]
    theirs = ffmpeg("-i", path, *chosen, "-pix_fmt", "yuv420p", "-f", "rawvideo", "-")
    ours = b"".join(f.image.to_ndarray().tobytes() for f in taken(path, "25f", "48f"))
    assert ours == theirs


def renumbered(lines: list[dict[str, Any]], start: int, end: int) -> list[dict[str, Any]]:
    """The lines of a slice, from those of the whole clip."""
    first_seconds = lines[start]["pts_seconds"]
    return [
        {
            **line,
            "frame_index": line["frame_index"] - start,
            "pts_seconds": pytest.approx(line["pts_seconds"] - first_seconds, abs=2e-6),
        }
        for line in lines[start:end]
    ]


def test_a_run_of_a_slice_gives_the_lines_of_the_whole_run(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    run(clip, tmp_path / "whole", tiny_weights, video=False)
    report = run(clip, tmp_path / "slice", tiny_weights, start="7f", end=2.16)
    lines = read_detections(tmp_path / "slice")
    assert lines == renumbered(read_detections(tmp_path / "whole"), 7, 54)
    assert lines[0]["pts_seconds"] == 0.0
    assert lines[0]["pts"] == 7 * lines[1]["pts"] // 8  # That of the source.
    assert report["output"]["num_frames"] == 47
    assert report["segments"]["number"] > 1
    assert report["source"]["duration_seconds"] == pytest.approx(47 / 25)
    assert "--start 7f --end 2.16" in report["command"]
    times = video_times(tmp_path / "slice" / "annotated.mp4")
    assert [time for time, _ in times] == [Fraction(index, 25) for index in range(47)]
    assert not report["output"]["notes"]


def test_segments_and_an_interruption_do_not_change_a_slice(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    options: dict[str, Any] = {"start": "3f", "end": "57f"}
    run(clip, tmp_path / "once", tiny_weights, **options)
    once = results(tmp_path / "once")
    config = replace(config_of(clip, tmp_path / "resumed", tiny_weights), **options)
    with pytest.raises(Interrupted):
        process_video(config, interrupted_at(40, KeyboardInterrupt()))
    assert process_video(config)["segments"]["done_before"] > 0
    assert results(tmp_path / "resumed") == once
    run(clip, tmp_path / "whole", tiny_weights, segment_seconds=60, video=False, **options)
    assert read_detections(tmp_path / "whole") == read_detections(tmp_path / "once")


def test_the_key_of_a_result_contains_the_slice(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    keys = {
        process(clip, tmp_path, tiny_weights, video=False, overwrite=True, **options)["result_key"]
        for options in ({}, {"start": 1}, {"end": 1}, {"start": "1f"}, {"start": "0:01"})
    }
    assert len(keys) == 4  # 1 and 0:01 are the same time.


def test_a_slice_is_drawn_later_as_it_is_at_once(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    options = {"start": "13f", "end": "44f"}
    run(clip, tmp_path / "once", tiny_weights, **options)
    run(clip, tmp_path / "later", tiny_weights, video=False, **options)
    assert main(["render", str(clip), str(tmp_path / "later" / "detections.jsonl")]) == 0
    assert results(tmp_path / "later") == results(tmp_path / "once")


def test_sound_and_subtitles_are_cut_with_the_picture(tmp_path: Path, tiny_weights: Path) -> None:
    tracks = [Track("aac"), Track("mov_text")]
    path = record_with_tracks(tmp_path / "clip.mp4", [], tracks)
    process(path, tmp_path / "out", tiny_weights, start=0.2, end=0.6)
    with av.open(str(tmp_path / "out" / "annotated.mp4")) as container:
        packets: dict[str, list[Any]] = {"audio": [], "subtitle": []}
        for packet in container.demux():
            if packet.size and packet.stream.type in packets:
                at = float(packet.pts * packet.time_base)
                lasts = float(packet.duration * packet.time_base)
                packets[packet.stream.type].append((at, lasts, bytes(packet)))
    sound = [(at, lasts) for at, lasts, _ in packets["audio"] if at + lasts > 0]
    one_packet = 1024 / 48000
    assert -one_packet <= sound[0][0] <= 0
    assert 0.4 - one_packet <= sound[-1][0] + sound[-1][1] <= 0.4 + one_packet
    texts = [(at, lasts, text) for at, lasts, text in packets["subtitle"] if len(text) > 2]
    assert [text[2:] for *_, text in texts] == [b"first", b"second"]
    # The first one was shown from 0 to 0.3 s, the second one from 0.4 to 0.7 s.
    assert [at for at, *_ in texts] == pytest.approx([0.0, 0.2], abs=0.002)
    assert [lasts for _, lasts, _ in texts] == pytest.approx([0.1, 0.2], abs=0.002)


def test_a_slice_of_the_scene_has_its_own_truth(tmp_path: Path, tiny_weights: Path) -> None:
    scene = SyntheticOptions(num_frames=40, size_wh=(128, 96), frame_rate=Fraction(10))
    process(scene, tmp_path / "whole", tiny_weights, video=False)
    process(scene, tmp_path / "part", tiny_weights, start=1, end="17f")
    assert read_detections(tmp_path / "part") == renumbered(
        read_detections(tmp_path / "whole"), 10, 17
    )
    truths = [
        [json.loads(line) for line in (tmp_path / name / "truth.jsonl").read_text().splitlines()]
        for name in ("whole", "part")
    ]
    assert truths[1] == renumbered(truths[0], 10, 17)
    assert len(video_times(tmp_path / "part" / "annotated.mp4")) == 7


def test_a_slice_of_numbered_pictures(tmp_path: Path, tiny_weights: Path) -> None:
    (tmp_path / "shots").mkdir()
    for index in range(12):
        cv2.imwrite(str(tmp_path / "shots" / f"{index}.png"), with_light((index, 3)))
    shots = PictureSequence(folder=tmp_path / "shots", frame_rate=Fraction(4))
    process(shots, tmp_path / "whole", tiny_weights)
    process(shots, tmp_path / "part", tiny_weights, start=0.5, end=2)
    assert read_detections(tmp_path / "part") == renumbered(
        read_detections(tmp_path / "whole"), 2, 8
    )


def test_detect_takes_a_slice(clip: Path, tiny_weights: Path) -> None:
    whole = list(pipeline.detect(clip, weights=tiny_weights))
    part = list(pipeline.detect(clip, weights=tiny_weights, start="31f", end="38f"))
    assert [frame.pts for frame in part] == [frame.pts for frame in whole[31:38]]
    assert [frame.boxes for frame in part] == [frame.boxes for frame in whole[31:38]]
    with contextlib.closing(pipeline.detect(clip, weights=tiny_weights, start=2, frames=3)) as some:
        assert [frame.pts for frame in some] == [frame.pts for frame in whole[50:53]]


def test_frames_count_from_the_start_of_the_slice(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    run(clip, tmp_path, tiny_weights, start="31f", num_frames=5)
    lines = read_detections(tmp_path)
    assert [line["frame_index"] for line in lines] == list(range(5))
    assert [line["pts_seconds"] for line in lines] == [0.0, 0.04, 0.08, 0.12, 0.16]


@pytest.mark.parametrize(
    ("start", "end"), [("60f", None), (2.4, None), ("1:00", "2:00"), (0.041, 0.079)]
)
def test_a_slice_without_frames_is_refused(
    start: object, end: object, clip: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"no frame lies in --start .* frame 59, at 2\.36"):
        taken(clip, start, end)


@pytest.mark.parametrize(
    "options", [{"start": 3, "end": 2}, {"end": 0}, {"start": "5f", "end": "5f"}]
)
def test_an_end_that_is_not_behind_the_start_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="the end is not after the start"):
        ProcessConfig(source=Path("clip.mp4"), output_dir=Path("out"), **options)


@pytest.mark.parametrize(
    "text", ["", "x", "-1", "1:2:3:4", "1:75", "5.5f", "f", "1/0", "nan", "inf"]
)
def test_what_is_neither_a_time_nor_a_frame_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"--start .* is neither a time, as in 12\.5"):
        ProcessConfig(source=Path("clip.mp4"), output_dir=Path("out"), start=text)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("12.5", Moment(Fraction(25, 2))),
        ("1:02:03.25", Moment(Fraction(3723) + Fraction(1, 4))),
        ("2:03", Moment(Fraction(123))),
        ("120f", Moment(frame=120)),
        ("1001/30000", Moment(Fraction(1001, 30000))),
    ],
)
def test_moments_are_read_and_written(text: str, moment: Moment) -> None:
    assert read_moment(text) == moment
    assert read_moment(str(moment)) == moment
    assert str(Slice(moment, None)) == f"--start {moment}"


def test_a_picture_has_no_slice(tmp_path: Path, tiny_weights: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), with_light((1, 3)))
    with pytest.raises(UsageError, match="has one frame"):
        process(tmp_path / "a.png", tmp_path / "out", tiny_weights, start=0)
