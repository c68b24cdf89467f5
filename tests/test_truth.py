"""Whole runs against the truth: the boxes of a frame are those of that frame and no other.

The scene has things that leave their own box from one frame to the next, so that boxes given to
the wrong frame cannot pass.
"""

from __future__ import annotations

import functools
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import pytest
from numpy.typing import NDArray
from synthetic_data import write_pictures

from pipeline.core.boxes import iou_matrix
from pipeline.core.config import (
    DetectOptions,
    DrawOptions,
    EncodeOptions,
    InferOptions,
    SyntheticOptions,
)
from pipeline.inference.configurations import configurations
from pipeline.measure.evaluate import evaluate
from pipeline.synthetic.scene import Scene, Truth
from pipeline.synthetic.sprites import CLASS_NAMES
from tests.conftest import DEMO, needs_demo, process, read_detections, video_times
from tests.recordings import frames_of, record

pytestmark = needs_demo

NUM_FRAMES = 17  # Four batches of four, and one more.
SIZE_WH = (320, 240)
SEEDS = {SIZE_WH: 72, (319, 241): 25, (240, 319): 58, (319, 239): 59, (640, 480): 72}
"""Of scenes of each size, in which many things leave their own box."""
LEAST_IOU = 0.5
FOUND, CONFUSED = 0.9, 0.1
"""The share of the things found in their own frame, and of the fast ones in a frame beside it."""

FLOAT32 = InferOptions(precision="f32")


@functools.cache
def scene_images(
    size_wh: tuple[int, int] = SIZE_WH, num_frames: int = NUM_FRAMES
) -> list[NDArray[np.uint8]]:
    """The frames, in RGB."""
    scene = Scene(size_wh, SEEDS[size_wh])
    return [np.ascontiguousarray(scene.draw(i)[:, :, ::-1]) for i in range(num_frames)]


@functools.cache
def scene_truths(size_wh: tuple[int, int], num_frames: int) -> list[Truth]:
    scene = Scene(size_wh, SEEDS[size_wh])
    return [scene.truth(index) for index in range(num_frames)]


def run(source: Path | SyntheticOptions, out: Path, **options: Any) -> list[dict[str, Any]]:
    """The lines of detections.jsonl."""
    fast = EncodeOptions(preset="ultrafast")
    options = {"infer": FLOAT32, "imgsz": 320, "encode": fast, **options}
    process(source, out, DEMO, overwrite=True, **options)
    return read_detections(out)


def is_found(line: dict[str, Any], class_id: int, xyxy: NDArray[np.float32]) -> bool:
    boxes = [box["xyxy"] for box in line["detections"] if box["class_id"] == class_id]
    found = np.array(boxes, np.float32).reshape(-1, 4)
    return bool((iou_matrix(xyxy[None], found) >= LEAST_IOU).any())


def share_found(lines: list[dict[str, Any]], truths: list[Truth]) -> float:
    found = [
        is_found(line, class_id, xyxy)
        for line, truth in zip(lines, truths, strict=True)
        for class_id, xyxy in zip(truth.class_id.tolist(), truth.xyxy, strict=True)
    ]
    return float(np.mean(found))


def shares_of_fast_things(
    lines: list[dict[str, Any]], truths: list[Truth], shift: int
) -> tuple[float, float]:
    """(found where they are, found where they are `shift` frames later), if these are far apart."""
    here, there = [], []
    for index, line in enumerate(lines):
        if not 0 <= index + shift < len(truths):
            continue
        now, then = truths[index], truths[index + shift]
        places = dict(zip(then.track_id.tolist(), then.xyxy, strict=True))
        for track_id, class_id, xyxy in zip(
            now.track_id.tolist(), now.class_id.tolist(), now.xyxy, strict=True
        ):
            place = places.get(track_id)
            if place is not None and iou_matrix(xyxy[None], place[None]) < 0.3:
                here.append(is_found(line, class_id, xyxy))
                there.append(is_found(line, class_id, place))
    assert len(here) >= 20
    return float(np.mean(here)), float(np.mean(there))


def assert_every_frame_has_its_own_boxes(
    lines: list[dict[str, Any]], size_wh: tuple[int, int] = SIZE_WH, num_frames: int = NUM_FRAMES
) -> None:
    truths = scene_truths(size_wh, num_frames)
    assert [line["frame_index"] for line in lines] == list(range(num_frames))
    for line in lines:
        for box in line["detections"]:
            assert box["class_name"] == CLASS_NAMES[box["class_id"]]
    assert share_found(lines, truths) >= FOUND
    for shift in (-1, 1):
        here, there = shares_of_fast_things(lines, truths, shift)
        assert here >= FOUND - 0.1  # They are small and blurred.
        assert there <= CONFUSED


def test_in_a_made_up_clip(tmp_path: Path) -> None:
    source = SyntheticOptions(num_frames=NUM_FRAMES, size_wh=SIZE_WH, seed=SEEDS[SIZE_WH])
    assert_every_frame_has_its_own_boxes(run(source, tmp_path / "out"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("clip") / "clip.mp4", scene_images())


def test_in_a_file(clip: Path, tmp_path: Path) -> None:
    assert_every_frame_has_its_own_boxes(run(clip, tmp_path / "out"))


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_in_a_turned_clip(tmp_path: Path, degrees: int) -> None:
    stored = [np.ascontiguousarray(np.rot90(image, -degrees // 90)) for image in scene_images()]
    clip = record(
        tmp_path / "clip.mp4", stored, configure=lambda s: s.set_display_rotation(degrees)
    )
    assert_every_frame_has_its_own_boxes(run(clip, tmp_path / "out"))


@pytest.mark.parametrize("size_wh", [(319, 241), (240, 319), (319, 239)])
def test_in_a_clip_of_odd_size(tmp_path: Path, size_wh: tuple[int, int]) -> None:
    clip = record(tmp_path / "clip.webm", scene_images(size_wh), codec="libvpx-vp9")
    assert_every_frame_has_its_own_boxes(run(clip, tmp_path / "out"), size_wh)


def test_in_a_clip_of_variable_rate(tmp_path: Path) -> None:
    steps = np.random.default_rng(0).integers(5, 120, NUM_FRAMES)
    ticks = [int(tick) for tick in steps.cumsum() - steps[0]]
    clip = record(tmp_path / "clip.mp4", scene_images(), time_base=Fraction(1, 1000), pts=ticks)
    lines = run(clip, tmp_path / "out")
    assert_every_frame_has_its_own_boxes(lines)
    assert [line["pts_seconds"] for line in lines] == [tick / 1000 for tick in ticks]
    assert video_times(tmp_path / "out" / "annotated.mp4") == video_times(clip)


def test_in_the_first_frames_of_a_clip(tmp_path: Path) -> None:
    clip = record(tmp_path / "clip.mp4", scene_images(num_frames=NUM_FRAMES + 9))
    lines = run(clip, tmp_path / "out", num_frames=NUM_FRAMES)
    assert_every_frame_has_its_own_boxes(lines)


@pytest.mark.parametrize("num_requests", [1, 3])
def test_in_batches_with_one_frame_left_over(clip: Path, tmp_path: Path, num_requests: int) -> None:
    infer = InferOptions(precision="f32", batch=4, num_requests=num_requests)
    assert_every_frame_has_its_own_boxes(run(clip, tmp_path / "out", infer=infer))


@pytest.mark.slow
@pytest.mark.parametrize("name", configurations(2))
def test_in_every_configuration_that_runs_here(clip: Path, tmp_path: Path, name: str) -> None:
    configuration = configurations(2)[name]
    if why := configuration.why_unavailable(ov.Core().available_devices):
        pytest.skip(why)
    for variant in configuration.variants:
        lines = run(clip, tmp_path / "out", infer=variant.options)
        assert_every_frame_has_its_own_boxes(lines)


# What the viewer sees

LABEL_WH = (110, 22)


def reach_px(xyxy: NDArray[np.float32]) -> int:
    """How far from a thing's edge the line drawn around it may be."""
    return 6 + int(0.08 * (xyxy[2:] - xyxy[:2]).max())


def changed_pixels(before: Any, after: Any) -> NDArray[np.bool_]:
    """Where any plane of two yuv420p frames differs, (height, width)."""
    height = before.height
    different = before.to_ndarray() != after.to_ndarray()
    chroma = different[height:].reshape(2, height // 2, -1).any(axis=0)
    both: NDArray[np.bool_] = different[:height] | chroma.repeat(2, axis=0).repeat(2, axis=1)
    return both


def paint_where_drawing_may_be(allowed: NDArray[np.bool_], xyxy: NDArray[np.float32]) -> None:
    """The borders of a box that is found to within a few pixels, and its label."""
    left, top, right, bottom = (int(value) for value in xyxy)
    reach, label_left = reach_px(xyxy), min(left, allowed.shape[1] - LABEL_WH[0])
    for x0, y0, x1, y1 in (
        (left, top, right, top),
        (left, bottom, right, bottom),
        (left, top, left, bottom),
        (right, top, right, bottom),
        (label_left, top - LABEL_WH[1], left + LABEL_WH[0], top + LABEL_WH[1]),
    ):
        rows = slice(max(0, y0 - reach), y1 + reach + 1)
        allowed[rows, max(0, x0 - reach) : x1 + reach + 1] = True


def share_of_border_changed(changed: NDArray[np.bool_], xyxy: NDArray[np.float32]) -> float:
    """Of the rows and columns that a thing spans, those with a change near both its edges."""
    left, top, right, bottom = (int(value) for value in xyxy)
    reach = reach_px(xyxy)

    def near(place: int) -> slice:
        return slice(max(0, place - reach), place + reach + 1)

    sides = [
        changed[near(top), left:right].any(axis=0) & changed[near(bottom), left:right].any(axis=0),
        changed[top:bottom, near(left)].any(axis=1) & changed[top:bottom, near(right)].any(axis=1),
    ]
    return float(np.concatenate(sides).mean())


def test_boxes_are_drawn_around_what_is_to_be_seen_and_nothing_else_changes(
    tmp_path: Path,
) -> None:
    size_wh = (640, 480)
    clip = record(tmp_path / "clip.mp4", scene_images(size_wh))
    sure, boxes_only = DetectOptions(confidence_threshold=0.5), DrawOptions(show_labels=False)
    lines = run(
        clip,
        tmp_path / "out",
        imgsz=640,
        encode=EncodeOptions(crf=0, preset="ultrafast"),
        detect=sure,
        draw=boxes_only,
    )
    before, after = frames_of(clip), frames_of(tmp_path / "out" / "annotated.mp4")
    borders, num_judged = [], 0
    truths = scene_truths(size_wh, NUM_FRAMES)
    for truth, line, one, other in zip(truths, lines, before, after, strict=True):
        boxes = np.array([box["xyxy"] for box in line["detections"]], np.float32).reshape(-1, 4)
        found = truth.xyxy[iou_matrix(boxes, truth.xyxy).argmax(axis=1)]
        # Where the model errs, it would not be the drawing that is tested.
        if any(np.abs(boxes - found).max(axis=1) > [reach_px(xyxy) - 3 for xyxy in found]):
            continue
        num_judged += 1
        changed, allowed = changed_pixels(one, other), np.zeros(size_wh[::-1], np.bool_)
        for xyxy in found:
            paint_where_drawing_may_be(allowed, xyxy)
            borders.append(share_of_border_changed(changed, xyxy))
        assert not (changed & ~allowed).any()
    assert num_judged >= 8
    assert min(borders) > 0.85


# Accuracy

SEEDS_TO_JUDGE_ON = range(2_000_000, 2_000_010)
INDICES = range(0, 2 * 83, 83)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_model_finds_the_things_of_other_scenes_in_every_precision(tmp_path: Path) -> None:
    write_pictures(tmp_path, (640, 480), SEEDS_TO_JUDGE_ON, INDICES)
    scores = evaluate(tmp_path, weights=DEMO, infer=InferOptions(precision="int8")).accuracy
    in_pytorch = evaluate(tmp_path, weights=DEMO, infer=InferOptions(engine="pytorch"))
    scores["pytorch"] = in_pytorch.accuracy["f32"]
    float32 = scores["f32"]
    within = {"f32": 0.0, "pytorch": 0.002, "bf16": 0.005, "int8": 0.01}
    assert scores.keys() >= {"f32", "pytorch", "int8"}
    for name, accuracy in scores.items():
        assert accuracy.map_50_95 == pytest.approx(float32.map_50_95, abs=within[name]), name
    assert float32.map_50 >= 0.95
    assert float32.map_50_95 >= 0.75
