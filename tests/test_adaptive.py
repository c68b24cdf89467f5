"""Adaptive sampling: what is inferred follows from boxes, and the rest is interpolated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.core.agreement import Agreement
from pipeline.core.boxes import Detections
from pipeline.core.config import InferOptions, LimitOptions
from pipeline.core.errors import UsageError
from pipeline.frames.adaptive import Adaptive, frames_in_half
from pipeline.frames.audit import Audit
from pipeline.frames.glance import appearance, glance
from pipeline.frames.links import InferredFrame, Link
from pipeline.frames.sampling import Choice, FoundFrame
from pipeline.measure.adaptive_gain import AdaptiveGain
from pipeline.media.frame import Frame
from pipeline.model.preprocess import Preprocessor
from tests.conftest import gray, process, read_detections, with_light, write_clip
from tests.schemas import schema_errors

GAP = 8
IMAGE = av.VideoFrame(16, 16, "yuv420p")


def boxes(*corners: tuple[float, float, float, float], confidence: float = 0.8) -> Detections:
    return Detections(
        np.array(corners, np.float32).reshape(-1, 4),
        np.full(len(corners), confidence, np.float32),
        np.zeros(len(corners), np.int64),
    )


def frame_at(index: int) -> Frame:
    return Frame(index, 2 * index, 2, Fraction(1, 50), IMAGE)


def choices(
    num_frames: int, shown: Callable[[int], Detections], gap: int = GAP, num_requests: int = 4
) -> dict[int, Choice]:
    """What happens to each frame of a clip that shows such boxes."""
    chosen: dict[int, Choice] = {}
    read = 0

    def frames() -> Iterator[Frame]:
        nonlocal read
        for index in range(num_frames):
            read += 1
            assert read - len(chosen) <= window
            yield frame_at(index)

    def found(index: int) -> Detections:
        assert chosen[index] is Choice.INFER
        return shown(index)

    sampler = Adaptive(7 * gap, 0.25)
    assert sampler.gap == gap
    window = sampler.window(num_requests)
    for frame, choice in sampler.choose(frames(), found, window):
        assert frame.index not in chosen
        chosen[frame.index] = choice
    assert sorted(chosen) == list(range(num_frames))
    return chosen


def inferred(chosen: dict[int, Choice]) -> list[int]:
    return sorted(index for index, choice in chosen.items() if choice is Choice.INFER)


STILL = boxes((10, 10, 50, 50), (100, 20, 160, 90))


@pytest.mark.parametrize("num_frames", [0, 1, 2, 8, 9, 16, 17, 100])
def test_of_what_does_not_change_every_eighth_frame_and_the_last_are_inferred(
    num_frames: int,
) -> None:
    expected = sorted({*range(0, num_frames, GAP), num_frames - 1} - {-1})
    assert inferred(choices(num_frames, lambda _: STILL)) == expected


def test_a_box_that_moves_evenly_needs_no_frame_more() -> None:
    chosen = choices(65, lambda i: boxes((i, 10 + i, i + 40, 60 + i)))
    assert inferred(chosen) == list(range(0, 65, GAP))


@pytest.mark.parametrize("change", range(17, 24))
def test_where_a_box_appears_is_found_to_the_frame(change: int) -> None:
    chosen = inferred(choices(40, lambda i: STILL if i >= change else boxes()))
    assert {change - 1, change} <= set(chosen)
    assert set(chosen) - set(range(16, 25)) == {0, 8, 32, 39}


@given(st.integers(0, 60), st.integers(8, 30), st.integers(60, 90))
def test_what_is_visible_for_eight_frames_is_never_missed(
    begin: int, duration: int, num_frames: int
) -> None:
    visible = set(range(begin, begin + duration)) & set(range(num_frames))
    chosen = inferred(choices(num_frames, lambda i: STILL if i in visible else boxes()))
    assert visible & set(chosen) or len(visible) < 8


@st.composite
def some_clip(draw: st.DrawFn) -> list[Detections]:
    """Frames of boxes that move, jump, appear and vanish."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    shown = []
    for _ in range(draw(st.integers(1, 50))):
        number = random.integers(0, 4)
        corner = random.integers(0, 60, (number, 2))
        size = random.integers(10, 40, (number, 2))
        shown.append(
            Detections(
                np.concatenate((corner, corner + size), axis=1).astype(np.float32),
                np.sort(random.random(number).astype(np.float32))[::-1],
                random.integers(0, 2, number),
            )
        )
    return shown


@settings(max_examples=30)
@given(some_clip(), st.sampled_from([1, 2, 4, 8]))
def test_every_frame_is_chosen_once_and_both_ends_are_inferred(
    clip: list[Detections], gap: int
) -> None:
    chosen = inferred(choices(len(clip), clip.__getitem__, gap))
    assert {*range(0, len(clip), gap), len(clip) - 1} <= set(chosen)


def test_one_of_fifty_interpolated_frames_is_audited() -> None:
    chosen = choices(5_000, lambda _: STILL)
    audited = sum(choice is Choice.AUDIT for choice in chosen.values())
    interpolated = audited + sum(choice is Choice.LEAVE for choice in chosen.values())
    assert audited / interpolated == pytest.approx(1 / 50, rel=0.2)


@pytest.mark.parametrize("max_memory_mb", [4096, 2000, 800, 400, 170])
@pytest.mark.parametrize("num_requests", [1, 4, 256])
def test_frames_in_work_take_half_of_the_memory_at_most(
    max_memory_mb: int, num_requests: int
) -> None:
    frame_bytes = 12_000_000
    sampler = Adaptive(frames_in_half(max_memory_mb, frame_bytes), 0.25)
    assert sampler.window(num_requests) * frame_bytes <= max_memory_mb * 1_000_000 // 2


def test_the_gap_is_shorter_for_large_frames_and_longer_than_needed_for_none() -> None:
    assert [Adaptive(most, 0.25).gap for most in (1000, 56, 55, 28, 14, 13, 0)] == [
        *(8, 8, 4, 4, 2, 1, 1)
    ]


@settings(max_examples=30)
@given(some_clip(), st.integers(1, 64))
def test_the_number_of_requests_does_not_decide_what_is_inferred(
    clip: list[Detections], num_requests: int
) -> None:
    few = choices(len(clip), clip.__getitem__, num_requests=1)
    assert choices(len(clip), clip.__getitem__, num_requests=num_requests) == few


def test_many_requests_have_as_many_gaps_to_work_on() -> None:
    sampler, shown = Adaptive(10_000, 0.25), boxes()
    ahead = 0

    def found(index: int) -> Detections:
        nonlocal ahead
        ahead = max(ahead, latest - index)
        return shown

    frames = (frame_at(index) for index in range(1000))
    for frame, _ in sampler.choose(frames, found, sampler.window(64)):
        latest = frame.index
    assert ahead >= 60 * GAP


def test_an_audit_counts_sure_boxes_of_both_sides_that_have_a_partner() -> None:
    audit = Audit()
    ours = boxes((0, 0, 40, 40), (100, 0, 140, 40))
    near = boxes((10, 0, 50, 40))  # IoU 0.6 with the first.
    audit.compare(ours, near, 0.25)
    assert audit.num_frames == 1
    loose, strict = audit.by_iou[0.5], audit.by_iou[0.75]
    assert (loose.ours.num_partnered, loose.ours.num_boxes) == (1, 2)
    assert (loose.theirs.num_partnered, loose.theirs.num_boxes) == (1, 1)
    assert (strict.ours.num_partnered, strict.theirs.num_partnered) == (0, 0)
    audit.compare(ours, ours, 0.25)
    assert audit.deciding.ours.num_partnered == 2
    assert Audit.from_record(audit.as_record()) == audit


@pytest.mark.parametrize(
    ("num_right", "num_wrong", "verdict"),
    [(1000, 0, "agrees"), (10, 0, "undecided"), (90, 10, "below")],
)
def test_an_audit_decides_only_what_its_interval_supports(
    num_right: int, num_wrong: int, verdict: str
) -> None:
    audit = Audit()
    for _ in range(num_right):
        audit.compare(boxes((0, 0, 40, 40)), boxes((0, 0, 40, 40)), 0.25)
    for _ in range(num_wrong):
        audit.compare(boxes((0, 0, 40, 40)), boxes((90, 0, 130, 40)), 0.25)
    assert audit.verdict(0.97) == verdict


def test_a_fast_thing_that_leaves_its_own_box_is_followed_on_a_straight_line() -> None:
    def thing(index: int) -> Detections:
        return boxes((30 * index, 10, 30 * index + 20, 30))

    sampler = Adaptive(1000, 0.25)
    frames = [frame_at(index) for index in range(25)]
    chosen = {frame.index: c for frame, c in sampler.choose(iter(frames), thing, 56)}
    assert len(inferred(chosen)) < 15
    found = [
        FoundFrame(frame, thing(frame.index) if chosen[frame.index] is Choice.INFER else None)
        for frame in frames
    ]
    for detected in sampler.fill_in(found):
        np.testing.assert_allclose(detected.detections.xyxy, thing(detected.frame.index).xyxy)


def test_boxes_cut_off_at_the_edge_to_nothing_have_no_far_partner() -> None:
    links = []
    for x in (0, 50):
        links.append(InferredFrame(frame_at(x), lambda x: boxes((x, 0, x, 10), (x, 40, x + 9, 49))))
    rows, columns = Link(*links).pairs
    assert (rows.tolist(), columns.tolist()) == ([1], [1])


def test_without_boxes_to_compare_the_gain_of_adaptive_sampling_gives_no_share() -> None:
    gain = AdaptiveGain(0.2, Agreement(), frames=2.0, file_to_file=1.5, cpu=2.0)
    assert "too few boxes to compare" in str(gain)
    assert "%" not in str(gain).partition("inferred")[2]


@pytest.mark.parametrize(
    "pix_fmt",
    ["yuv420p", "yuv420p10le", "gray", "rgb24", "yuyv422", "p010le", "uyvy422", "argb", "0bgr"],
)
@pytest.mark.parametrize("size_wh", [(640, 360), (322, 182), (96, 64)])
def test_a_look_at_pixels_finds_what_is_in_the_middle_frame_only(
    pix_fmt: str, size_wh: tuple[int, int]
) -> None:
    width, height = size_wh
    looks = []
    for is_there in (False, False, True, False):
        picture = np.full((height, width, 3), 60, np.uint8)
        if is_there:
            picture[height // 4 : height // 2, width // 4 : width // 2] = 200
        looks.append(glance(av.VideoFrame.from_ndarray(picture).reformat(format=pix_fmt)))
    assert appearance(looks[0], looks[1:3], looks[3]) == 1
    assert appearance(looks[0], looks[:2], looks[3]) is None
    assert appearance(looks[0], [], looks[3]) is None


@pytest.mark.parametrize("size_wh", [(16, 16), (2, 300), (300, 2)])
def test_a_look_at_the_smallest_pictures_finds_nothing(size_wh: tuple[int, int]) -> None:
    look = glance(av.VideoFrame(*size_wh, "yuv420p"))
    assert appearance(look, [look], look) is None


def test_another_picture_for_a_while_is_an_appearance_and_a_moving_camera_is_none() -> None:
    random = np.random.default_rng(0)
    wall = random.integers(0, 255, (360, 1000, 3), np.uint8).repeat(4, axis=0).repeat(4, axis=1)
    views = [np.ascontiguousarray(wall[:360, x : x + 640]) for x in range(0, 640, 80)]
    looks = [glance(av.VideoFrame.from_ndarray(view)) for view in views]
    assert appearance(looks[0], looks[1:-1], looks[-1]) is None
    assert appearance(looks[0], [looks[0], looks[3]], looks[0]) == 1


NUM_FRAMES, CHANGE = 100, 43


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("adaptive") / "clip.mp4"
    cells = [(3, 4) if index < CHANGE else (10, 5) for index in range(NUM_FRAMES)]
    return write_clip(path, [with_light(cell) for cell in cells])


def test_a_real_run_infers_around_the_change_and_reports_its_audit(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    full = process(clip, tmp_path / "full", tiny_weights, reuse_duplicates=False)
    report = process(clip, tmp_path / "out", tiny_weights, adaptive=True, reuse_duplicates=False)
    lines = read_detections(tmp_path / "out")
    chosen = [line["frame_index"] for line in lines if not line["interpolated"]]
    assert {0, 40, CHANGE - 1, CHANGE, 48, NUM_FRAMES - 1} <= set(chosen)
    found, audit = report["detections"], report["audit"]
    assert found["inferred_frames"] == len(chosen) < 25
    assert found["interpolated_frames"] == NUM_FRAMES - len(chosen)
    assert audit["num_frames"] > 0
    assert [entry["share"] for entry in audit["by_iou"]] == [1.0, 1.0]
    assert full["audit"] is None
    written = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert schema_errors("report", written) == []
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    lead = page.partition('class="lead"')[2].partition("</p>")[0]
    assert f"those of {NUM_FRAMES - len(chosen)} frames" in lead
    for name in ("size wh", "pix fmt", "num requests", "size bytes", "every", "True", "False"):
        assert f"<td>{name}</td>" not in page
    boxes_of = [
        [(box["class_id"], box["xyxy"]) for line in lines for box in line["detections"]]
        for lines in (lines, read_detections(tmp_path / "full"))
    ]
    assert boxes_of[0] == boxes_of[1]


def test_a_run_whose_boxes_are_surely_wrong_has_a_warning(
    tmp_path: Path, tiny_weights: Path
) -> None:
    """A light that is elsewhere in all frames but each eighth, so that nothing seems to change."""
    cells = [(3, 4) if index % GAP == 0 else (10, 5) for index in range(97)]
    clip = write_clip(tmp_path / "clip.mp4", [with_light(cell) for cell in cells])
    report = process(clip, tmp_path / "out", tiny_weights, adaptive=True)
    assert report["audit"]["verdict"] == "below"
    assert any("--least-agreement" in note for note in report["output"]["notes"])
    lenient = process(clip, tmp_path / "other", tiny_weights, adaptive=True, least_agreement=0.01)
    assert lenient["audit"]["by_iou"] == report["audit"]["by_iou"]
    assert not any("--least-agreement" in note for note in lenient["output"]["notes"])


def test_frames_that_are_not_inferred_are_not_converted(
    clip: Path, tmp_path: Path, tiny_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    converted: list[int] = []

    class Counting(Preprocessor):
        def __call__(self, frame: Frame, model_input: NDArray[np.uint8]) -> None:
            converted.append(frame.index)
            super().__call__(frame, model_input)

    monkeypatch.setattr("pipeline.frames.views.Preprocessor", Counting)
    report = process(clip, tmp_path / "out", tiny_weights, adaptive=True)
    found, audited = report["detections"], report["audit"]["num_frames"]
    assert len(converted) == len(set(converted))
    assert len(converted) == found["inferred_frames"] + found["reused_frames"] + audited
    assert len(converted) < NUM_FRAMES / 3


def test_what_shows_for_a_few_frames_between_two_empty_ones_is_found(
    tmp_path: Path, tiny_weights: Path
) -> None:
    shown = set(range(18, 23))
    images = [with_light((6, 4)) if i in shown else gray(20) for i in range(60)]
    clip = write_clip(tmp_path / "clip.mp4", images)
    report = process(clip, tmp_path / "out", tiny_weights, adaptive=True)
    lines = read_detections(tmp_path / "out")
    assert {line["frame_index"] for line in lines if line["detections"]} == shown
    assert report["detections"]["interpolated_frames"] > 40


@pytest.mark.parametrize(("batch", "num_requests"), [(1, 1), (3, 2)])
def test_requests_and_batches_do_not_decide_what_is_inferred(
    batch: int, num_requests: int, clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    usual = tmp_path / "usual"
    process(clip, usual, tiny_weights, adaptive=True)
    infer = InferOptions(batch=batch, num_requests=num_requests)
    process(clip, tmp_path / "other", tiny_weights, adaptive=True, infer=infer)
    texts = [(folder / "detections.jsonl").read_bytes() for folder in (usual, tmp_path / "other")]
    assert texts[0] == texts[1]


def test_memory_that_holds_few_frames_is_enough(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    limits = LimitOptions(max_memory_mb=1)
    report = process(clip, tmp_path / "out", tiny_weights, adaptive=True, limits=limits)
    size_wh = report["source"]["size_wh"]
    frames = report["configuration"]["max_frames_in_flight"]
    assert frames * size_wh[0] * size_wh[1] * 1.5 <= 1_000_000


def test_it_is_refused_together_with_every_and_for_a_picture(
    clip: Path, tmp_path: Path, tiny_weights: Path
) -> None:
    with pytest.raises(UsageError, match="--every"):
        process(clip, tmp_path / "out", tiny_weights, adaptive=True, every=2)
    picture = tmp_path / "picture.png"
    with av.open(str(picture), "w", format="image2") as out:
        stream = out.add_stream("png", rate=1)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "rgb24"
        image = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        out.mux([*stream.encode(image), *stream.encode(None)])
    with pytest.raises(UsageError, match="picture"):
        process(picture, tmp_path / "out", tiny_weights, adaptive=True)
