"""Interrupted runs go on where they were, and give what an uninterrupted one gives."""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import gc
import itertools
import os
import random
import shutil
import weakref
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import pytest

from pipeline.cli.spool import spooled
from pipeline.core.config import (
    DetectOptions,
    EncodeOptions,
    InferOptions,
    SyntheticOptions,
)
from pipeline.core.errors import EncodeError, FolderInUse, InputError, Interrupted, PipelineError
from pipeline.core.progress import Progress
from pipeline.core.work_folder import MARK_NAME, SPOOL_NAME, WORK_NAME
from pipeline.execution.journal import Journal, open_journal
from pipeline.frames.decode import VideoReader
from pipeline.frames.detect import ModelDetections
from pipeline.frames.encode import VideoEncoder
from pipeline.inference.selection import SpeedOptions, rule
from pipeline.media.cut import cut_clip
from pipeline.media.frame import Frame
from pipeline.media.scan import scan_clip
from pipeline.run.process import process_video
from tests.conftest import RESULT_NAMES, read_detections, video_times, write_clip
from tests.recordings import (
    Track,
    assert_numbered,
    damage_packets,
    numbered,
    record,
    record_with_tracks,
    tracks_of,
)
from tests.resuming import (
    KEYS,
    SEGMENT_SECONDS,
    config_of,
    interrupt,
    interrupted_at,
    results,
    run,
)

RATE = 12
NUM_FRAMES = 60
PER_SEGMENT = 10
IN_THE_FOURTH = 37
"""A frame in the fourth of six segments."""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 numbered frames with a key frame at every fifth: six segments."""
    return write_numbered(tmp_path_factory.mktemp("clip") / "clip.mp4")


def write_numbered(path: Path, first: int = 0) -> Path:
    images = [numbered(first + i) for i in range(NUM_FRAMES)]
    return write_clip(path, images, rate=RATE, options={**KEYS, "g": "5"})


@pytest.fixture(scope="module")
def clean(
    clip: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[bytes, bytes]:
    """What a run gives that nothing interrupts."""
    out = tmp_path_factory.mktemp("clean") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(out.parent / "cache"))
        assert run(clip, out, tiny_weights)["segments"]["number"] == 6
    return results(out)


@pytest.fixture(scope="module")
def interrupted_run(
    clip: Path, tiny_weights: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The output folder of a run that was interrupted in its fourth segment; never changed."""
    out = tmp_path_factory.mktemp("interrupted") / "out"
    assert "3 of 6 segments" in interrupt(clip, out, tiny_weights, IN_THE_FOURTH)
    return out


@pytest.fixture
def interrupted(interrupted_run: Path, tmp_path: Path) -> Path:
    """The output folder of a run of the clip that was interrupted after three segments."""
    return shutil.copytree(interrupted_run, tmp_path / "out")


# Segments by themselves


def picture_and_time(frame: Frame) -> tuple[Fraction, bytes]:
    return frame.pts * frame.time_base, frame.image.to_ndarray(format="gray").tobytes()


SOURCES: list[tuple[str, str, dict[str, str]]] = [
    ("libx264", "mp4", {**KEYS, "bf": "3"}),
    ("libx264", "mkv", {**KEYS, "bf": "3"}),
    ("libx264", "ts", {**KEYS, "bf": "3"}),
    ("libx264", "mp4", {**KEYS, "x264-params": "open-gop=1:bframes=3"}),
    ("libx264", "mp4", {**KEYS, "x264-params": "intra-refresh=1"}),
    ("libx265", "mkv", {"x265-params": "keyint=10:open-gop=1:log-level=error"}),
    ("mpeg4", "avi", {"g": "10"}),
    ("libvpx-vp9", "webm", {"g": "10"}),
    ("mjpeg", "avi", {}),
]

NAMES = [f"{codec}-{suffix}-{i}" for i, (codec, suffix, _) in enumerate(SOURCES)]


@pytest.mark.parametrize(
    ("codec", "suffix", "options"),
    SOURCES,
    ids=NAMES,
)
def test_a_segment_that_is_sought_has_the_pictures_of_one_that_is_read_on_to(
    tmp_path: Path, codec: str, suffix: str, options: dict[str, str]
) -> None:
    path = record(
        tmp_path / f"clip.{suffix}",
        [numbered(i) for i in range(NUM_FRAMES)],
        codec=codec,
        pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p",
        rate=Fraction(RATE),
        options=options,
    )
    reader = VideoReader(path)
    whole = [picture_and_time(frame) for frame in reader]
    segments = cut_clip(scan_clip(path), SEGMENT_SECONDS)
    assert len(segments) > 4
    read_on = [[picture_and_time(f) for f in reader.frames(segment)] for segment in segments]
    assert list(itertools.chain(*read_on)) == whole
    assert len(whole) == NUM_FRAMES
    order = random.Random(1).sample(segments, len(segments))
    for segment in order:
        assert [picture_and_time(f) for f in reader.frames(segment)] == read_on[segment.number]
    reader.close()


def test_segments_are_found_where_time_stamps_begin_anew(tmp_path: Path) -> None:
    first = record(tmp_path / "first.ts", [numbered(i) for i in range(60)], options=KEYS)
    path = tmp_path / "clip.ts"
    path.write_bytes(first.read_bytes() * 2)
    reader = VideoReader(path)
    whole = [picture_and_time(frame) for frame in reader]
    segments = cut_clip(scan_clip(path), SEGMENT_SECONDS)
    assert len(segments) > 3
    for segment in reversed(segments):
        frames = [picture_and_time(frame) for frame in reader.frames(segment)]
        assert frames == [
            frame
            for frame in whole
            if (segment.start_pts or 0) <= frame[0] / reader.info.time_base
            and (segment.end_pts is None or frame[0] / reader.info.time_base < segment.end_pts)
        ]
    reader.close()


def test_in_segments_the_result_is_that_of_one_piece(
    clip: Path, tmp_path: Path, tiny_weights: Path, clean: tuple[bytes, bytes]
) -> None:
    report = run(clip, tmp_path / "out", tiny_weights, segment_seconds=60.0)
    assert report["segments"]["number"] == 1
    assert (tmp_path / "out" / "detections.jsonl").read_bytes() == clean[1]
    (tmp_path / "clean.mp4").write_bytes(clean[0])
    assert video_times(tmp_path / "clean.mp4") == video_times(tmp_path / "out" / "annotated.mp4")


def test_every_frame_of_a_clip_in_segments_is_itself(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    report = run(clip, tmp_path / "out", tiny_weights)
    assert report["segments"] == {"number": 6, "done_before": 0, "frames_done_before": 0}
    assert report["output"]["num_frames"] == NUM_FRAMES
    assert_numbered(tmp_path / "out", NUM_FRAMES)
    assert video_times(tmp_path / "out" / "annotated.mp4") == video_times(clip)
    assert report["detections"]["total"] == NUM_FRAMES
    times = [point["seconds"] for point in report["speed"]["over_time"]]
    assert times == sorted(times)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "annotated.mp4",
        "detections.jsonl",
        "report.json",
        "report.html",
        "viewer.html",
        "viewer_data",
    }


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1", "vp9"])
def test_every_codec_can_be_joined(
    clip: Path, tmp_path: Path, tiny_weights: Path, codec: str
) -> None:
    run(clip, tmp_path / "out", tiny_weights, encode=EncodeOptions(codec=codec))
    assert video_times(tmp_path / "out" / "annotated.mp4") == video_times(clip)
    if codec != "av1":  # At this quality its pictures of a bar code cannot be told apart.
        assert_numbered(tmp_path / "out", NUM_FRAMES)


def test_each_segment_begins_and_ends_with_an_inferred_frame(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    run(clip, tmp_path / "out", tiny_weights, every=4)
    inferred = [
        line["frame_index"]
        for line in read_detections(tmp_path / "out")
        if not line["interpolated"]
    ]
    starts = range(0, NUM_FRAMES, PER_SEGMENT)
    assert inferred == [start + i for start in starts for i in (0, 4, 8, 9)]


def test_of_the_first_frames_only_no_more_are_taken_than_asked_for(
    tmp_path: Path, tiny_weights: Path
) -> None:
    clip = record_with_tracks(tmp_path / "clip.mkv", [], [Track("aac")])
    report = run(clip, tmp_path / "out", tiny_weights, num_frames=15, segment_seconds=0.2)
    assert report["output"]["num_frames"] == 15
    assert len(read_detections(tmp_path / "out")) == 15


def test_sound_is_copied_once_over_all_segments(tmp_path: Path, tiny_weights: Path) -> None:
    silent = write_clip(tmp_path / "a.mp4", [numbered(i) for i in range(20)], options=KEYS)
    with_sound = record_with_tracks(tmp_path / "b.mp4", [], [Track("aac")])
    for path in (silent, with_sound):
        out = tmp_path / path.stem
        run(path, out, tiny_weights, segment_seconds=0.2)
        assert tracks_of(out / "annotated.mp4", "audio") == tracks_of(path, "audio")


def test_a_segment_without_a_single_good_frame_leaves_a_gap(
    tmp_path: Path, tiny_weights: Path
) -> None:
    images = [numbered(i) for i in range(60)]
    clip = write_clip(tmp_path / "clip.mp4", images, codec="mpeg4", options={"g": "1", "qmax": "2"})
    damage_packets(clip, list(range(20, 40)))
    report = run(clip, tmp_path / "out", tiny_weights, segment_seconds=0.4)
    assert report["segments"]["number"] == 6
    frames = report["output"]["num_frames"]
    faults = report["source"]["faults"]
    assert frames + faults["broken_packets"] >= 60 or faults["corrupt_frames"]
    assert len(read_detections(tmp_path / "out")) == frames


def test_the_truth_of_a_synthetic_clip_is_joined_too(tmp_path: Path, tiny_weights: Path) -> None:
    scene = SyntheticOptions(num_frames=50, size_wh=(128, 96))
    for name, seconds in (("one", 60.0), ("many", 0.3)):
        run(scene, tmp_path / name, tiny_weights, segment_seconds=seconds)
    one, many = ((tmp_path / name / "truth.jsonl").read_bytes() for name in ("one", "many"))
    assert one == many
    assert len(one.splitlines()) == 50


def test_nothing_of_a_segment_stays_in_memory_until_the_collector_comes_by(
    clip: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loops: list[weakref.ref[ModelDetections]] = []
    whole = ModelDetections.__init__

    def watched(loop: ModelDetections, *arguments: Any) -> None:
        whole(loop, *arguments)
        loops.append(weakref.ref(loop))

    monkeypatch.setattr(ModelDetections, "__init__", watched)
    gc.disable()
    try:
        run(clip, tmp_path / "out", tiny_weights)
        assert [loop() for loop in loops] == [None] * 6
    finally:
        gc.enable()


# Interrupted, and run again


@pytest.mark.parametrize("frame", [1, 10, 11, 32, 60])
def test_an_interrupted_run_goes_on_and_gives_the_very_same(
    clip: Path, tmp_path: Path, tiny_weights: Path, clean: tuple[bytes, bytes], frame: int
) -> None:
    out = tmp_path / "out"
    message = interrupt(clip, out, tiny_weights, frame)
    done = (frame - 1) // PER_SEGMENT
    assert not (out / "annotated.mp4").exists()
    if done:
        assert f"{done} of 6 segments" in message
    else:
        assert "no output" in message
        assert not out.exists()
    report = run(clip, out, tiny_weights)
    assert report["segments"] == {
        "number": 6,
        "done_before": done,
        "frames_done_before": done * PER_SEGMENT,
    }
    assert results(out) == clean
    assert report["output"]["num_frames"] == report["detections"]["inferred_frames"] == NUM_FRAMES
    assert not (out / WORK_NAME).exists()


def test_a_run_that_failed_says_what_is_kept_and_goes_on(
    clip: Path,
    tmp_path: Path,
    tiny_weights: Path,
    clean: tuple[bytes, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, whole = tmp_path / "out", VideoEncoder.encode
    calls = iter(range(1000))

    def broken(*arguments: Any) -> None:
        if next(calls) == 25:
            raise EncodeError("the disk is full")
        whole(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(VideoEncoder, "encode", broken)
        with pytest.raises(
            EncodeError, match=r"the disk is full; 2 of 6 segments are kept: rerun the command"
        ):
            run(clip, out, tiny_weights)
    assert run(clip, out, tiny_weights)["segments"]["done_before"] == 2
    assert results(out) == clean


def cut_journal(work: Path) -> None:
    journal = work / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-7])


def scrambled_journal(work: Path) -> None:
    journal = work / "journal.jsonl"
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join([lines[0], b"\xff\x00{", *lines[2:]]))


def flipped_byte(work: Path) -> None:
    path = work / "0001.mp4"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE: dict[str, tuple[Callable[[Path], object], int]] = {
    "journal cut": (cut_journal, 2),
    "journal scrambled": (scrambled_journal, 2),
    "journal gone": (lambda work: (work / "journal.jsonl").unlink(), 0),
    "video damaged": (flipped_byte, 2),
    "video gone": (lambda work: (work / "0000.mp4").unlink(), 2),
    "video empty": (lambda work: (work / "0002.mp4").write_bytes(b""), 2),
    "detections gone": (lambda work: (work / "0001.jsonl").unlink(), 2),
    "manifest damaged": (lambda work: (work / "0001.json").write_text("{}"), 2),
    "key gone": (lambda work: (work / "key").unlink(), 0),
    "everything gone": (shutil.rmtree, 0),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_to_what_was_kept_is_noticed_and_done_again(
    clip: Path, interrupted: Path, tiny_weights: Path, clean: tuple[bytes, bytes], name: str
) -> None:
    damage, left = DAMAGE[name]
    damage(interrupted / WORK_NAME)
    assert run(clip, interrupted, tiny_weights)["segments"]["done_before"] == left
    assert results(interrupted) == clean


CHANGES: dict[str, dict[str, Any]] = {
    "confidence": {"detect": DetectOptions(confidence_threshold=0.5)},
    "quality": {"encode": EncodeOptions(crf=30)},
    "every": {"every": 2},
    "segments": {"segment_seconds": 1.2},
    "frames": {"num_frames": 50},
}


@pytest.mark.parametrize("change", CHANGES)
def test_with_other_options_a_run_asks_before_it_discards_what_is_kept(
    clip: Path, interrupted: Path, tiny_weights: Path, clean: tuple[bytes, bytes], change: str
) -> None:
    kept = content_of(interrupted / WORK_NAME)
    with pytest.raises(
        InputError, match=r"3 segments of an interrupted run .* --overwrite"
    ) as told:
        run(clip, interrupted, tiny_weights, **CHANGES[change])
    assert "rerun the command" not in str(told.value)  # This one would not resume them.
    assert content_of(interrupted / WORK_NAME) == kept
    report = run(clip, interrupted, tiny_weights, overwrite=True, **CHANGES[change])
    assert report["segments"]["done_before"] == 0
    [discarded] = [note for note in report["output"]["notes"] if "discarded" in note]
    assert discarded.startswith("3 segments of an interrupted run")
    assert not (interrupted / WORK_NAME).exists()


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_options_that_the_encoder_refuses_discard_nothing(
    clip: Path, interrupted: Path, tiny_weights: Path, clean: tuple[bytes, bytes]
) -> None:
    kept = content_of(interrupted / WORK_NAME)
    for overwrite in (False, True):
        with pytest.raises(PipelineError):
            run(clip, interrupted, tiny_weights, encode=EncodeOptions(crf=52), overwrite=overwrite)
        assert content_of(interrupted / WORK_NAME) == kept
    assert run(clip, interrupted, tiny_weights)["segments"]["done_before"] == 3
    assert results(interrupted) == clean


@pytest.mark.parametrize(("frame", "left"), [(5, 3), (IN_THE_FOURTH, 3)])
def test_what_is_kept_is_discarded_when_there_is_a_segment_in_its_place(
    clip: Path, interrupted: Path, tiny_weights: Path, frame: int, left: int
) -> None:
    kept = content_of(interrupted / WORK_NAME)
    detect = DetectOptions(confidence_threshold=0.5)
    config = dataclasses.replace(
        config_of(clip, interrupted, tiny_weights), overwrite=True, detect=detect
    )
    with pytest.raises(Interrupted):
        process_video(config, interrupted_at(frame, KeyboardInterrupt()))
    assert (content_of(interrupted / WORK_NAME) == kept) == (frame < PER_SEGMENT)
    overwrite = frame < PER_SEGMENT
    report = run(clip, interrupted, tiny_weights, detect=detect, overwrite=overwrite)
    assert report["segments"]["done_before"] == (0 if overwrite else left)


# Folders of other programs, and other runs


@pytest.mark.parametrize("name", ["clip.mp4", "journal.jsonl", MARK_NAME, "key"])
def test_a_folder_of_another_program_is_left_alone(
    clip: Path, tmp_path: Path, tiny_weights: Path, clean: tuple[bytes, bytes], name: str
) -> None:
    out = tmp_path / "out"
    foreign = out / WORK_NAME
    foreign.mkdir(parents=True)
    (foreign / name).write_text("half a file")
    interrupt(clip, out, tiny_weights, IN_THE_FOURTH)
    assert run(clip, out, tiny_weights)["segments"]["done_before"] == 3
    assert results(out) == clean
    assert content_of(foreign) == {name: b"half a file"}
    assert {path.name for path in out.iterdir()} == {WORK_NAME, *RESULT_NAMES}


def test_where_all_names_are_taken_a_run_is_refused(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    out = tmp_path / "out"
    for name in (WORK_NAME, f"{WORK_NAME}-pipeline"):
        (out / name).mkdir(parents=True)
        (out / name / "mine").touch()
    with pytest.raises(InputError, match="belong to another program"):
        run(clip, out, tiny_weights)
    assert sorted(str(path.relative_to(out)) for path in out.rglob("mine")) == [
        f"{WORK_NAME}-pipeline/mine",
        f"{WORK_NAME}/mine",
    ]


def test_a_link_to_another_folder_is_not_taken_for_a_work_folder(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    out, other = tmp_path / "out", tmp_path / "other"
    interrupt(clip, other, tiny_weights, IN_THE_FOURTH)
    kept = content_of(other / WORK_NAME)
    out.mkdir()
    (out / WORK_NAME).symlink_to(other / WORK_NAME)
    assert run(clip, out, tiny_weights)["segments"]["done_before"] == 0
    assert content_of(other / WORK_NAME) == kept


def test_a_work_folder_of_a_version_without_the_mark_is_gone_on_with(
    clip: Path, interrupted: Path, tiny_weights: Path, clean: tuple[bytes, bytes]
) -> None:
    (interrupted / WORK_NAME / MARK_NAME).unlink()
    assert run(clip, interrupted, tiny_weights)["segments"]["done_before"] == 3
    assert results(interrupted) == clean
    assert not (interrupted / WORK_NAME).exists()


def test_while_standard_input_is_kept_for_a_run_no_other_one_begins(
    clip: Path, tmp_path: Path, tiny_weights: Path, clean: tuple[bytes, bytes]
) -> None:
    out = tmp_path / "out"
    with clip.open("rb") as stream, spooled(stream, out) as source:
        for _ in range(2):
            with pytest.raises(FolderInUse):
                run(clip, out, tiny_weights)
            with clip.open("rb") as other:
                with pytest.raises(FolderInUse), spooled(other, out):
                    pass
                assert other.tell() == 0
            assert source.read_bytes() == clip.read_bytes()
        run(source, out, tiny_weights)
    assert results(out) == clean
    assert not (out / WORK_NAME).exists()


def test_a_file_system_that_cannot_lock_is_a_warning(
    clip: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    report = run(clip, tmp_path / "out", tiny_weights)
    [told] = [note for note in report["output"]["notes"] if "cannot lock" in note]
    assert str(tmp_path / "out") in told


def test_a_run_goes_on_with_as_many_encoder_threads_as_it_began_with(
    clip: Path, interrupted: Path, tiny_weights: Path, clean: tuple[bytes, bytes]
) -> None:
    # As after tuning.
    with pytest.MonkeyPatch.context() as patch:
        whole = VideoEncoder.__init__
        seen = []

        def watched(*arguments: Any, num_threads: int) -> None:
            seen.append(num_threads)
            whole(*arguments, num_threads=num_threads)

        patch.setattr(VideoEncoder, "__init__", watched)
        tuned = SpeedOptions(InferOptions(pinning=False), encoder_threads=5)
        patch.setattr("pipeline.inference.selection.rule", lambda _: tuned)
        assert run(clip, interrupted, tiny_weights)["segments"]["done_before"] == 3
    assert set(seen) == {rule((128, 96)).encoder_threads}
    assert results(interrupted) == clean


def test_an_older_result_is_not_replaced_by_going_on_without_being_asked_to(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    out = tmp_path / "out"
    run(clip, out, tiny_weights, num_frames=10)
    before = results(out)
    config = dataclasses.replace(config_of(clip, out, tiny_weights), overwrite=True)
    with pytest.raises(Interrupted, match="3 of 6 segments are kept"):
        process_video(config, interrupted_at(IN_THE_FOURTH, KeyboardInterrupt()))
    with pytest.raises(InputError, match="exists already"):
        run(clip, out, tiny_weights)
    assert results(out) == before
    assert process_video(config)["segments"]["done_before"] == 3


def test_nothing_unfinished_stays_on_a_full_disk(
    clip: Path, interrupted: Path, tiny_weights: Path
) -> None:
    left = {path.name.partition(".")[0] for path in (interrupted / WORK_NAME).iterdir()}
    assert left == {"pipeline-work", "key", "journal", "0000", "0001", "0002"}


def test_with_another_input_of_the_same_name_a_run_starts_anew(
    tmp_path: Path, tiny_weights: Path
) -> None:
    out, clip = tmp_path / "out", tmp_path / "clip.mp4"
    write_numbered(clip)
    interrupt(clip, out, tiny_weights, IN_THE_FOURTH)
    write_numbered(clip, first=1)
    with pytest.raises(InputError, match="3 segments of an interrupted run"):
        run(clip, out, tiny_weights)
    assert run(clip, out, tiny_weights, overwrite=True)["segments"]["done_before"] == 0
    assert read_detections(out)[0]["detections"][0]["xyxy"][0] == pytest.approx(8.0, abs=0.1)


def test_what_is_read_from_standard_input_outlives_segments_of_no_use(
    clip: Path, interrupted: Path, tiny_weights: Path, clean: tuple[bytes, bytes]
) -> None:
    with clip.open("rb") as stream, spooled(stream, interrupted) as source:
        report = run(source, interrupted, tiny_weights, overwrite=True)
    assert report["segments"]["done_before"] == 0
    assert results(interrupted) == clean
    assert not (interrupted / WORK_NAME).exists()


def test_a_run_on_standard_input_goes_on_when_the_same_comes_again(
    clip: Path, tmp_path: Path, tiny_weights: Path, clean: tuple[bytes, bytes]
) -> None:
    out = tmp_path / "out"
    with clip.open("rb") as stream, spooled(stream, out) as source:
        interrupt(source, out, tiny_weights, IN_THE_FOURTH)
    assert not (out / WORK_NAME / SPOOL_NAME).exists()
    with clip.open("rb") as stream, spooled(stream, out) as source:
        assert run(source, out, tiny_weights)["segments"]["done_before"] == 3
    assert results(out) == clean


def test_a_run_that_was_cut_while_it_published_goes_on(
    clip: Path,
    tmp_path: Path,
    tiny_weights: Path,
    clean: tuple[bytes, bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, whole = tmp_path / "out", Path.replace

    def cut(path: Path, target: Path) -> Path:
        if path.name == "report.html":
            raise KeyboardInterrupt
        return whole(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", cut)
        with pytest.raises(Interrupted):
            run(clip, out, tiny_weights)
    assert (out / "detections.jsonl").exists()
    report = run(clip, out, tiny_weights)
    assert report["segments"]["done_before"] == 6
    assert report["speed"]["file_to_file_fps"] > 0
    assert results(out) == clean


def test_what_an_interrupted_run_kept_is_no_permission_to_replace_other_results(
    clip: Path, interrupted: Path, tiny_weights: Path
) -> None:
    (interrupted / "report.json").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        run(clip, interrupted, tiny_weights, every=2)
    assert (interrupted / "report.json").read_text() == "mine"


def test_two_runs_do_not_write_to_one_folder(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    out = tmp_path / "out"
    with open_journal(out), pytest.raises(InputError, match="another run is writing there"):
        run(clip, out, tiny_weights)


@pytest.mark.parametrize("is_written", [False, True])
def test_an_interrupt_while_a_segment_is_recorded_keeps_it_exactly_if_its_line_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_written: bool
) -> None:
    with open_journal(tmp_path / "out") as journal:
        journal.begin("key", num_segments=2, encoder_threads=1)
        part, lines = journal.making / "0000.mp4", journal.folder / "journal.jsonl"
        part.write_bytes(b"video")

        def interrupted(_: int) -> None:
            if (lines.exists() and lines.stat().st_size > 0) == is_written:
                raise KeyboardInterrupt

        monkeypatch.setattr(os, "fsync", interrupted)
        with pytest.raises(KeyboardInterrupt):
            journal.add(0, [part])
        assert journal.num_done == Journal(journal.folder).num_done == int(is_written)


def test_a_run_that_cannot_fit_is_refused_before_it_starts(
    clip: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(InputError, match=r"0 MB are free, but the result needs"):
        run(clip, tmp_path / "out", tiny_weights)
    assert not (tmp_path / "out").exists()


def test_for_what_is_kept_only_the_copy_in_the_result_needs_room(
    clip: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    # So that what a run needs is far more than what these small segments take.
    monkeypatch.setattr("pipeline.run.outputs.LEAST_BITS_PER_PIXEL", 100.0)
    whole = 2 * NUM_FRAMES * 128 * 96 * 100 // 8
    free = whole

    def usage(_: Path) -> Any:
        return disk._replace(free=free)

    disk = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", usage)
    interrupt(clip, out, tiny_weights, IN_THE_FOURTH)
    kept = sum(path.stat().st_size for path in (out / WORK_NAME).glob("000*"))
    free = whole // 2 + kept - 1
    with pytest.raises(InputError, match="make room"):
        run(clip, out, tiny_weights)
    free += 1
    with pytest.raises(InputError, match="make room"):
        run(clip, out, tiny_weights, every=2, overwrite=True)
    assert run(clip, out, tiny_weights)["segments"]["done_before"] == 3


def test_frames_at_the_end_of_a_clip_are_interpolated_however_it_is_cut(
    clip: Path, tmp_path: Path, tiny_weights: Path, clean: tuple[bytes, bytes]
) -> None:
    """Of frames 0 to 48 the last one is inferred, and resuming gives the very same."""
    one, two = tmp_path / "one", tmp_path / "two"
    run(clip, one, tiny_weights, every=3, num_frames=49)
    config = dataclasses.replace(config_of(clip, two, tiny_weights), every=3, num_frames=49)
    with pytest.raises(Interrupted):
        process_video(config, interrupted_at(IN_THE_FOURTH, KeyboardInterrupt()))
    assert process_video(config)["segments"]["done_before"] == 3
    assert results(one) == results(two)
    inferred = [line["frame_index"] for line in read_detections(one) if not line["interpolated"]]
    assert inferred[-4:] == [40, 43, 46, 48]


def test_what_is_inferred_adaptively_is_the_same_after_an_interruption(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    options: dict[str, Any] = {"adaptive": True, "segment_seconds": 1.6}
    whole = run(clip, one, tiny_weights, **options)
    config = dataclasses.replace(config_of(clip, two, tiny_weights), **options)
    with pytest.raises(Interrupted):
        process_video(config, interrupted_at(IN_THE_FOURTH, KeyboardInterrupt()))
    resumed = process_video(config)
    assert resumed["segments"]["done_before"] == 1
    assert results(one) == results(two)
    assert [whole[key] for key in ("audit", "detections")] == [
        resumed[key] for key in ("audit", "detections")
    ]
    inferred = [line["frame_index"] for line in read_detections(one) if not line["interpolated"]]
    for start in range(0, NUM_FRAMES, 20):
        assert {start, start + 8, start + 16, start + 19} <= set(inferred)


# The clip changes meanwhile


def grows(clip: Path) -> None:
    with clip.open("ab") as file:
        file.write(b"more")


def is_touched(clip: Path) -> None:
    os.utime(clip, ns=(1, 1))


def is_written_to_in_secret(clip: Path) -> None:
    stamp = clip.stat()
    content = bytearray(clip.read_bytes())
    content[-1] ^= 1
    clip.write_bytes(content)
    os.utime(clip, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))


@pytest.mark.parametrize("change", [grows, is_touched, is_written_to_in_secret, Path.unlink])
@pytest.mark.parametrize("frame", [5, 25, NUM_FRAMES])
def test_a_clip_that_changes_while_it_is_processed_fails_and_nothing_is_left(
    clip: Path, tmp_path: Path, tiny_weights: Path, frame: int, change: Callable[[Path], object]
) -> None:
    source, out = tmp_path / "clip.mp4", tmp_path / "out"
    shutil.copy(clip, source)

    def tell(progress: Progress) -> None:
        if progress.stage == "frames" and progress.done == frame:
            change(source)

    with pytest.raises(InputError, match=r"clip\.mp4: (changed while|can no longer be read)") as e:
        process_video(config_of(source, out, tiny_weights), tell)
    assert "kept" not in str(e.value)
    assert not out.exists()


def test_a_picture_that_changes_while_it_is_processed_fails(
    tmp_path: Path, tiny_weights: Path
) -> None:
    picture = tmp_path / "picture.png"
    cv2.imwrite(str(picture), numbered(1))
    source = SyntheticOptions(num_frames=20, size_wh=(128, 96), image=picture)

    def tell(progress: Progress) -> None:
        if progress.stage == "frames" and progress.done == 10:
            grows(picture)

    with pytest.raises(InputError, match="changed while"):
        process_video(config_of(source, tmp_path / "out", tiny_weights), tell)
