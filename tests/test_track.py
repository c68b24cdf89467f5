"""Tracks: ids that things keep, found over all detections of a clip, without its pixels."""

from __future__ import annotations

import json
import pickle
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import openvino as ov
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.cli.commands import main
from pipeline.cli.parsers import parse_arguments
from pipeline.core.boxes import NO_TRACK, Detections, pair_boxes
from pipeline.core.config import (
    TRACKERS,
    DetectOptions,
    DrawOptions,
    EncodeOptions,
    ProcessConfig,
    SyntheticOptions,
)
from pipeline.core.detection_lines import read_detections as frames_of
from pipeline.core.errors import Interrupted, UsageError
from pipeline.core.file_part import FilePart
from pipeline.core.progress import Progress
from pipeline.frames.annotate import Annotator
from pipeline.frames.interpolate import LEAST_IOU, Interpolation
from pipeline.media.frame import plane_rows
from pipeline.run.identity import drawn_key
from pipeline.run.process import process_video
from pipeline.run.tracks.between import Between
from pipeline.run.tracks.tracker import open_tracker
from tests.commands import faulty, worker_pid
from tests.conftest import gray, info_of, light_detector, read_detections, with_light, write_clip
from tests.resuming import F32, interrupted_at, run
from tests.schemas import schema_errors

pytest.importorskip("trackers", reason="needs the extra track")

NUM_FRAMES = 56
KEYS = {"g": "8", "sc_threshold": "0", "crf": "4"}
BRIGHT, DIM = 255, 118
"""The light detector finds the second with a confidence of about 0.18."""
DIM_FRAMES = range(20, 26)
ONE, THREE, SEVEN = 60.0, 0.6, 0.3
"""Seconds of a segment that cut the clip into so many."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A light detector with boxes that overlap those of the next cell."""
    path = tmp_path_factory.mktemp("wide") / "wide.xml"
    ov.save_model(light_detector(wide_boxes=True), path, compress_to_fp16=False)
    return path


def picture(index: int) -> NDArray[np.uint8]:
    """A light that stays, but is dim for a while, and one that moves a cell in four frames."""
    image = gray(20)
    image[16:24, 16:24] = DIM if index in DIM_FRAMES else BRIGHT
    x = 8 * (index // 4)
    image[72:80, x : x + 8] = BRIGHT
    return image


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, [picture(i) for i in range(NUM_FRAMES)], options=KEYS)


@pytest.fixture(scope="module")
def tracked(clip: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run with tracks, in three segments."""
    out = tmp_path_factory.mktemp("tracked")
    run(clip, out, weights, track="bytetrack", segment_seconds=THREE)
    return out


def ids(out: Path, top: bool) -> list[int | None]:
    """The id of the light that stays (at the top), or that moves, in each frame that it is in."""
    return [
        box["track_id"]
        for line in read_detections(out)
        for box in line["detections"]
        if (box["xyxy"][1] < 40) == top
    ]


def without_ids(out: Path) -> list[dict[str, Any]]:
    lines = read_detections(out)
    for line in lines:
        for box in line["detections"]:
            del box["track_id"]
    return lines


def lines_of(out: Path) -> tuple[bytes, bytes]:
    return (out / "detections.jsonl").read_bytes(), (out / "weak.jsonl").read_bytes()


def test_things_keep_their_ids_and_boxes_are_those_of_a_run_without_tracks(
    clip: Path, weights: Path, tracked: Path, tmp_path: Path
) -> None:
    report = run(clip, tmp_path / "usual", weights, video=False, segment_seconds=THREE)
    assert without_ids(tracked) == read_detections(tmp_path / "usual")
    for top, number in ((True, NUM_FRAMES - len(DIM_FRAMES)), (False, NUM_FRAMES)):
        first, *others = ids(tracked, top)
        assert first is None, "a track is confirmed by its second box"
        assert len(others) == number - 1
        [track_id] = set(others)
        assert track_id in (1, 2)
    assert set(ids(tracked, True)) & set(ids(tracked, False)) == {None}
    # The boxes of the dim light are for the tracker only.
    weak = [frame.frame_index for frame in frames_of(tracked / "weak.jsonl") if frame.boxes]
    assert weak == list(DIM_FRAMES)
    assert report["detections"]["tracks"] is None
    made = json.loads((tracked / "report.json").read_text())
    assert made["detections"]["tracks"] == 2
    assert made["configuration"]["track"] == "bytetrack"
    assert made["segments"]["number"] == 3
    assert "track" in {step["step"] for step in made["steps"]}
    assert not schema_errors("report", made)
    assert not any(schema_errors("detections", line) for line in read_detections(tracked))


def test_boxes_below_the_threshold_of_their_class_take_no_place_of_others(tmp_path: Path) -> None:
    options = DetectOptions(
        class_thresholds=tuple((str(number), 0.9) for number in range(0, 10, 2)),
        max_detections=3,
        agnostic_nms=True,
    )
    for name, track in (("usual", None), ("out", "bytetrack")):
        process_video(
            ProcessConfig(
                source=SyntheticOptions(num_frames=12, size_wh=(320, 240), seed=3),
                output_dir=tmp_path / name,
                imgsz=320,
                detect=options,
                infer=F32,
                video=False,
                track=track,
            )
        )
    assert without_ids(tmp_path / "out") == read_detections(tmp_path / "usual")
    assert any(frame.boxes for frame in frames_of(tmp_path / "out" / "weak.jsonl"))


@pytest.mark.parametrize("segment_seconds", [ONE, SEVEN])
def test_ids_do_not_depend_on_segments(
    clip: Path, weights: Path, tracked: Path, tmp_path: Path, segment_seconds: float
) -> None:
    report = run(
        clip, tmp_path, weights, track="bytetrack", video=False, segment_seconds=segment_seconds
    )
    assert report["segments"]["number"] == {ONE: 1, SEVEN: 7}[segment_seconds]
    assert lines_of(tmp_path) == lines_of(tracked)


def test_lines_stay_in_their_file_until_they_travel(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text("first\n" + "second\n" * 1000 + "third\n")
    part = FilePart(path, 6, 6 + 7000)
    assert part.text() == "second\n" * 1000
    sent = pickle.dumps(part)
    assert len(sent) < 500
    path.unlink()
    assert pickle.loads(sent).text() == "second\n" * 1000


@pytest.mark.skipif(sys.platform != "linux", reason="needs cores by their ids")
def test_processes_side_by_side_give_the_same_files(
    clip: Path, weights: Path, tracked: Path, tmp_path: Path
) -> None:
    run(clip, tmp_path, weights, track="bytetrack", segment_seconds=THREE, segments_at_once=2)
    assert lines_of(tmp_path) == lines_of(tracked)
    assert (tmp_path / "annotated.mp4").read_bytes() == (tracked / "annotated.mp4").read_bytes()


def test_a_run_interrupted_while_it_draws_resumes(
    clip: Path, weights: Path, tracked: Path, tmp_path: Path
) -> None:
    """The progress of both passes together counts every frame of the clip once."""
    config = ProcessConfig(
        source=clip,
        output_dir=tmp_path,
        weights=weights,
        track="bytetrack",
        segment_seconds=THREE,
        infer=F32,
    )
    with pytest.raises(Interrupted, match="5 of 6 segments are kept"):
        process_video(config, interrupted_at(45, KeyboardInterrupt()))
    assert not (tmp_path / "detections.jsonl").exists()
    counted: list[Progress] = []
    report = process_video(config, counted.append)
    assert report["segments"]["done_before"] == 3
    assert lines_of(tmp_path) == lines_of(tracked)
    assert (tmp_path / "annotated.mp4").read_bytes() == (tracked / "annotated.mp4").read_bytes()
    frames = [progress for progress in counted if progress.stage == "frames"]
    assert [progress.done for progress in frames] == sorted(progress.done for progress in frames)
    assert frames[-1].done == frames[-1].total == NUM_FRAMES


@pytest.mark.parametrize(("step", "frame"), [("preprocess", 40), ("encode", 40)])
def test_a_run_killed_while_it_detects_or_draws_resumes_with_the_same_ids(
    clip: Path, weights: Path, tracked: Path, tmp_path: Path, step: str, frame: int
) -> None:
    words = ["process", str(clip), "--output-dir", str(tmp_path / "out"), "--quiet"]
    words += [
        "--track",
        "bytetrack",
        "--weights",
        str(weights),
        "--segment-seconds",
        str(THREE),
        "--precision",
        "f32",
    ]
    with faulty("kill", step, frame, *words) as running:
        worker_pid(running)
        assert running.wait(60) == 1
    assert not (tmp_path / "out" / "detections.jsonl").exists()
    assert main(words) == 0
    assert lines_of(tmp_path / "out") == lines_of(tracked)
    drawn = (tmp_path / "out" / "annotated.mp4").read_bytes()
    assert drawn == (tracked / "annotated.mp4").read_bytes()


def test_the_clip_is_that_which_render_draws_later(
    clip: Path, weights: Path, tracked: Path, tmp_path: Path
) -> None:
    run(clip, tmp_path, weights, track="bytetrack", segment_seconds=THREE, video=False)
    assert not (tmp_path / "annotated.mp4").exists()
    assert main(["render", str(clip), str(tmp_path / "detections.jsonl")]) == 0
    assert (tmp_path / "annotated.mp4").read_bytes() == (tracked / "annotated.mp4").read_bytes()


def test_an_id_stands_on_the_label() -> None:
    boxes = Detections(
        np.array([[30, 40, 90, 80]], np.float32), np.array([0.5], np.float32), np.zeros(1, int)
    )

    def label_width(track_id: int | None) -> int:
        ids = None if track_id is None else np.array([track_id])
        tracked = Detections(boxes.xyxy, boxes.confidence, boxes.class_id, ids)
        frame = av.VideoFrame(128, 96, "yuv420p")
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        drawn = Annotator(info_of(), ("light",))(frame, tracked)
        rows = plane_rows(drawn.planes[0])[:38, :128]
        return int(np.count_nonzero(rows.any(axis=0)))

    assert label_width(None) == label_width(NO_TRACK) < label_width(7) < label_width(77)


@pytest.mark.parametrize("sampling", [{"every": 4}, {"adaptive": True}])
def test_boxes_between_inferred_frames_take_the_id_of_their_pair(
    clip: Path, weights: Path, tmp_path: Path, sampling: dict[str, Any]
) -> None:
    usual = run(clip, tmp_path / "usual", weights, video=False, segment_seconds=ONE, **sampling)
    run(
        clip,
        tmp_path / "out",
        weights,
        video=False,
        segment_seconds=ONE,
        track="bytetrack",
        **sampling,
    )
    assert usual["detections"]["interpolated_frames"] > NUM_FRAMES // 3
    assert without_ids(tmp_path / "out") == read_detections(tmp_path / "usual")
    for top in (True, False):
        found = ids(tmp_path / "out", top)
        assert set(found[8:]) <= {1, 2}
        assert len(set(found[8:])) == 1


def random_rows(seed: int, number: int) -> NDArray[np.float64]:
    """Left, top, width, height, confidence and class: with values at random, lines of two pairs
    do not cross in one box, which none can tell apart."""
    low, high = (0, 0, 4, 4, 0.1, 0), (600, 400, 80, 80, 1, 2)
    return np.random.default_rng(seed).uniform(low, high, (number, 6))


def detections_of(rows: NDArray[np.float64]) -> Detections:
    values = rows[np.argsort(-rows[:, 4], kind="stable")]
    xyxy = np.concatenate((values[:, :2], values[:, :2] + values[:, 2:4]), axis=1)
    return Detections(
        xyxy.astype(np.float32),
        values[:, 4].astype(np.float32),
        values[:, 5].astype(np.int64),
        np.arange(1, 1 + len(values)),
    )


@given(
    st.integers(0, 2**32),
    st.integers(0, 8),
    st.integers(0, 8),
    st.sampled_from([0.125, 0.25, 0.5, 0.625]),
)
def test_every_interpolated_box_has_an_id_of_its_ends_and_no_two_have_the_same(
    seed: int, num_before: int, num_after: int, fraction: float
) -> None:
    first, last = random_rows(seed, num_before), random_rows(seed + 1, num_after)
    near = min(num_before, num_after) // 2  # These have moved by less than a tenth of their size.
    last[:near] = first[:near] * (1 + last[:near] / 10_000)
    before, after = detections_of(first), detections_of(last)
    rows, columns = pair_boxes(before, after, LEAST_IOU)
    # The thing of a pair keeps its id.
    kept = np.arange(101, 101 + len(after))
    assert before.track_id is not None
    kept[columns] = before.track_id[rows]
    after = Detections(after.xyxy, after.confidence, after.class_id, kept)
    between = Interpolation(before, after).at(fraction).rounded()
    found = Between(before.rounded(), after.rounded()).ids(between, fraction).tolist()
    given_ids = [number for number in found if number != NO_TRACK]
    assert len(set(given_ids)) == len(given_ids)
    assert set(found) <= {*before.track_id.tolist(), *kept.tolist()}


def test_times_that_are_uneven_count_and_not_the_number_of_frames() -> None:
    def ids_after(gap_seconds: float) -> list[int]:
        tracker, found = open_tracker("bytetrack", 25.0, 0.25), []
        for number in range(10):
            seconds = number / 25 + (gap_seconds if number >= 5 else 0.0)
            # It moves on while there are no frames.
            left = 10 + 100 * seconds
            box = Detections(
                np.array([[left, 10, left + 40, 50]], np.float32),
                np.array([0.9], np.float32),
                np.zeros(1, np.int64),
            )
            found += tracker.update(box, seconds).tolist()
        return found[1:]

    assert ids_after(0.0) == [1] * 9
    assert ids_after(0.6) == [1] * 9, "60 pixels further, where its speed leads"
    assert set(ids_after(3.0)[5:]) == {2}, "lost for longer than a second"


def test_times_that_are_equal_do_not_lose_a_frame() -> None:
    tracker = open_tracker("bytetrack", 25.0, 0.25)
    box = Detections(
        np.array([[10, 10, 50, 50]], np.float32), np.array([0.9], np.float32), np.zeros(1, int)
    )
    found = [tracker.update(box, seconds).tolist() for seconds in (0.0, 0.0, 0.0, 0.04)]
    assert found == [[NO_TRACK], [1], [1], [1]]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_an_earlier_result_gets_the_same_ids(
    tracker: str, clip: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = next(name for name in TRACKERS if name != tracker)
    run(clip, tmp_path / "at-once", weights, track=tracker, video=False, segment_seconds=ONE)
    run(clip, tmp_path / "later", weights, track=other, video=False, segment_seconds=ONE)
    words = ["track", str(tmp_path / "later"), "--tracker", tracker]
    assert main(words) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite"]) == 0
    assert lines_of(tmp_path / "later") == lines_of(tmp_path / "at-once")
    made = json.loads((tmp_path / "later" / "report.json").read_text())
    assert made["configuration"]["track"] == tracker
    assert not schema_errors("report", made)


def test_without_the_weak_boxes_ids_are_found_with_a_warning(
    clip: Path,
    weights: Path,
    tracked: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run(clip, tmp_path, weights, segment_seconds=THREE)
    assert not (tmp_path / "weak.jsonl").exists()
    assert main(["track", str(tmp_path / "detections.jsonl"), "--tracker", "bytetrack"]) == 0
    captured = capsys.readouterr()
    assert "weak.jsonl" in captured.err
    assert "2 tracks" in captured.out
    assert without_ids(tmp_path) == without_ids(tracked)
    assert {*ids(tmp_path, True)} - {None}
    # The clip is drawn anew with them, and exports have them.
    words = ["render", str(clip), str(tmp_path / "detections.jsonl"), "--overwrite"]
    assert main(words) == 0
    assert (tmp_path / "annotated.mp4").read_bytes() == (tracked / "annotated.mp4").read_bytes()
    assert main(["export", str(tmp_path), "--to", "mot"]) == 0
    rows = (tmp_path / "export" / "mot" / "clip" / "gt" / "gt.txt").read_text().splitlines()
    assert {row.split(",")[1] for row in rows} == {"1", "2"}
    # Other tracks are those of another result, which is drawn as before.
    assert main([*words, "--no-confidence"]) == 0
    assert main(["track", str(tmp_path), "--tracker", "ocsort", "--overwrite"]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    drawing = DrawOptions(show_conf=False)
    drawn = drawn_key(report["detections_key"], EncodeOptions(), drawing)
    assert report["result_key"] == drawn


def test_lines_alone_are_enough(tracked: Path, tmp_path: Path) -> None:
    words = ["track", str(tmp_path / "boxes.jsonl"), "--tracker", "bytetrack"]
    (tmp_path / "boxes.jsonl").write_bytes((tracked / "detections.jsonl").read_bytes())
    assert main([*words, "--overwrite", "--quiet"]) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["boxes.jsonl"]
    assert (tmp_path / "boxes.jsonl").read_bytes() == (tracked / "detections.jsonl").read_bytes()


def test_a_tracker_needs_no_name_and_a_clip_may_follow() -> None:
    def parsed(*words: str) -> tuple[str | None, list[str]]:
        arguments = parse_arguments(["process", *words])
        return arguments.track, arguments.videos

    assert parsed("--track", "clip.mp4") == (TRACKERS[0], ["clip.mp4"])
    assert parsed("--track", "ocsort", "clip.mp4") == ("ocsort", ["clip.mp4"])
    assert parsed("clip.mp4", "--track=botsort") == ("botsort", ["clip.mp4"])
    assert parsed("clip.mp4", "--track") == (TRACKERS[0], ["clip.mp4"])
    assert parsed("--track", "--every", "2") == (TRACKERS[0], [])
    assert parsed("clip.mp4", "--", "--track") == (None, ["clip.mp4", "./--track"])


def test_a_picture_has_no_tracks(tmp_path: Path, weights: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), with_light((3, 3)))
    with pytest.raises(UsageError, match="--track"):
        run(tmp_path / "a.png", tmp_path / "out", weights, track="bytetrack")


def test_the_scene_is_tracked_and_drawn_too(weights: Path, tmp_path: Path) -> None:
    scene = SyntheticOptions(num_frames=12, size_wh=(128, 96))
    run(scene, tmp_path, weights, track="bytetrack", segment_seconds=0.2)
    assert len(read_detections(tmp_path)) == 12
    assert len((tmp_path / "truth.jsonl").read_text().splitlines()) == 12


@pytest.mark.parametrize("words", [["process", "synthetic", "--track"], ["track", "x.jsonl"]])
def test_without_the_library_one_line_names_the_extra(
    words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing() -> None:
        raise PackageNotFoundError("trackers")

    monkeypatch.setattr("pipeline.run.tracks.tracker.tracker_versions", missing)
    assert main(words) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert "the extra track" in line
