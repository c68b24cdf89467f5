"""Boxes for the frames between two that were inferred."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.boxes import Detections, iou_matrix, pair_boxes
from pipeline.frames.interpolate import Interpolation, Pairs
from pipeline.frames.sampling import FoundFrame, fill_in
from pipeline.media.frame import Frame

Box = tuple[int, float, tuple[float, float, float, float]]
"""Class, confidence, corners."""

NONE = Detections.empty()
IMAGE = av.VideoFrame(16, 16, "yuv420p")


def detections(*boxes: Box) -> Detections:
    return Detections(
        np.array([corners for _, _, corners in boxes], np.float32).reshape(-1, 4),
        np.array([confidence for _, confidence, _ in boxes], np.float32),
        np.array([class_id for class_id, _, _ in boxes], np.int64),
    )


def interpolate(before: Detections, after: Detections, fraction: float) -> Detections:
    return Interpolation(before, after).at(fraction)


def frame_at(index: int, pts: int | None = None) -> Frame:
    return Frame(index, index if pts is None else pts, 1, Fraction(1, 25), IMAGE)


@st.composite
def some_boxes(draw: st.DrawFn) -> Detections:
    boxes = []
    for _ in range(draw(st.integers(0, 6))):
        x, y = draw(st.integers(0, 60)), draw(st.integers(0, 60))
        w, h = draw(st.integers(1, 40)), draw(st.integers(1, 40))
        confidence = draw(st.integers(1, 99)) / 100
        boxes.append((draw(st.integers(0, 2)), confidence, (x, y, x + w, y + h)))
    boxes.sort(key=lambda box: -box[1])
    return detections(*boxes)


fractions = st.floats(0, 1, width=32)


def rows(some: Detections, digits: int = 3) -> list[tuple[float, ...]]:
    """Boxes in an order of their own, to be compared."""
    table = np.column_stack((some.class_id, some.confidence, some.xyxy)).round(digits)
    return sorted(tuple(row) for row in table.tolist())


def test_a_box_moves_in_a_straight_line() -> None:
    before = detections((1, 0.4, (0, 0, 10, 10)))
    after = detections((1, 0.8, (4, 2, 14, 16)))
    between = interpolate(before, after, 0.25)
    np.testing.assert_allclose(between.xyxy, [[1, 0.5, 11, 11.5]])
    np.testing.assert_allclose(between.confidence, [0.5])
    assert between.class_id.tolist() == [1]


def test_a_box_of_another_class_is_another_thing() -> None:
    before = detections((0, 0.9, (0, 0, 10, 10)))
    after = detections((1, 0.8, (0, 0, 10, 10)))
    assert rows(interpolate(before, after, 0.4)) == rows(before)
    assert rows(interpolate(before, after, 0.6)) == rows(after)


def test_boxes_that_hardly_overlap_are_two_things() -> None:
    before = detections((0, 0.9, (0, 0, 10, 10)))
    after = detections((0, 0.8, (9, 0, 19, 10)))
    assert rows(interpolate(before, after, 0.4)) == rows(before)
    assert rows(interpolate(before, after, 0.6)) == rows(after)


def test_what_appears_or_vanishes_does_so_half_way() -> None:
    box = detections((0, 0.9, (0, 0, 10, 10)))
    for fraction in (0.01, 0.49, 0.51, 0.99):
        assert len(interpolate(box, NONE, fraction)) == (fraction < 0.5)
        assert len(interpolate(NONE, box, fraction)) == (fraction > 0.5)


def test_of_several_partners_a_box_takes_the_one_that_overlaps_most() -> None:
    before = detections((0, 0.9, (0, 0, 10, 10)), (0, 0.8, (6, 0, 16, 10)))
    after = detections((0, 0.7, (7, 0, 17, 10)), (0, 0.6, (1, 0, 11, 10)))
    middle = interpolate(before, after, 0.5)
    assert rows(middle) == rows(
        detections((0, 0.75, (0.5, 0, 10.5, 10)), (0, 0.75, (6.5, 0, 16.5, 10)))
    )


@given(some_boxes(), fractions)
def test_nothing_moves_between_two_frames_with_the_same_boxes(
    some: Detections, fraction: float
) -> None:
    between = interpolate(some, some, fraction)
    places = [sorted((row[0], *row[2:]) for row in rows(boxes)) for boxes in (between, some)]
    assert places[0] == places[1]


@given(some_boxes(), some_boxes())
def test_both_ends_are_what_was_inferred(before: Detections, after: Detections) -> None:
    assert rows(interpolate(before, after, 0.0)) == rows(before)
    assert rows(interpolate(before, after, 1.0)) == rows(after)


@given(some_boxes(), some_boxes(), fractions)
def test_there_are_as_many_boxes_of_each_class_as_in_the_nearer_frame(
    before: Detections, after: Detections, fraction: float
) -> None:
    between = interpolate(before, after, fraction)
    nearer = before if fraction < 0.5 else after
    assert Counter(between.class_id.tolist()) == Counter(nearer.class_id.tolist())


@given(some_boxes(), some_boxes(), fractions)
def test_boxes_stay_boxes_within_what_was_seen_the_most_confident_first(
    before: Detections, after: Detections, fraction: float
) -> None:
    between = interpolate(before, after, fraction)
    if not len(between):
        return
    seen = np.concatenate((before.xyxy, after.xyxy))
    assert (between.xyxy >= seen.min(axis=0) - 1e-4).all()
    assert (between.xyxy <= seen.max(axis=0) + 1e-4).all()
    assert (between.xyxy[:, 2:] > between.xyxy[:, :2]).all()
    assert (np.diff(between.confidence) <= 0).all()


@given(some_boxes(), some_boxes(), fractions)
def test_what_was_inferred_is_left_as_it_was(
    before: Detections, after: Detections, fraction: float
) -> None:
    copies = [rows(before, 6), rows(after, 6)]
    interpolate(before, after, fraction)
    assert [rows(before, 6), rows(after, 6)] == copies


def test_the_way_is_shared_out_by_time_and_not_by_frames() -> None:
    before = detections((0, 0.5, (0, 0, 40, 40)))
    after = detections((0, 0.5, (8, 0, 48, 40)))
    frames = [
        FoundFrame(frame_at(0, 1000), before),
        FoundFrame(frame_at(1, 1010), None),
        FoundFrame(frame_at(2, 1030), None),
        FoundFrame(frame_at(3, 1040), after),
    ]
    left = [float(found.detections.xyxy[0, 0]) for found in fill_in(frames)]
    assert left == pytest.approx([0, 2, 6, 8])


def test_behind_the_last_inferred_frame_its_boxes_stay() -> None:
    box = detections((0, 0.5, (0, 0, 40, 40)))
    found = list(fill_in(FoundFrame(frame_at(i), box if i == 0 else None) for i in range(3)))
    assert [entry.inferred for entry in found] == [True, False, False]
    assert [rows(entry.detections) for entry in found] == [rows(box)] * 3


def test_of_no_frames_there_come_none() -> None:
    assert list(fill_in([])) == []


@given(st.lists(st.one_of(st.none(), some_boxes()), max_size=20), some_boxes())
def test_every_frame_comes_out_once_in_its_place(
    rest: list[Detections | None], first: Detections
) -> None:
    given_ones = [first, *rest]
    found = list(fill_in(FoundFrame(frame_at(i), some) for i, some in enumerate(given_ones)))
    assert [entry.frame.index for entry in found] == list(range(len(given_ones)))
    assert [entry.inferred for entry in found] == [some is not None for some in given_ones]
    for entry, some in zip(found, given_ones, strict=True):
        if some is not None:
            assert entry.detections is some


@pytest.mark.parametrize("every", [1, 2, 5])
def test_no_more_frames_are_held_back_than_lie_between_two_inferred_ones(every: int) -> None:
    taken = 0

    def source() -> Iterator[FoundFrame]:
        nonlocal taken
        for i in range(50):
            taken += 1
            yield FoundFrame(frame_at(i), NONE if i % every == 0 else None)

    for given_back, _ in enumerate(fill_in(source())):
        assert taken - given_back <= every


def test_the_boxes_of_two_frames_are_paired_once_for_all_frames_between(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[float] = []

    def counted(before: Detections, after: Detections, least_iou: float) -> Pairs:
        calls.append(least_iou)
        return pair_boxes(before, after, least_iou)

    monkeypatch.setattr("pipeline.frames.interpolate.pair_boxes", counted)
    box = detections((0, 0.5, (0, 0, 40, 40)))
    list(fill_in(FoundFrame(frame_at(i), box if i % 10 == 0 else None) for i in range(31)))
    assert len(calls) == 3


@given(some_boxes(), some_boxes(), st.sampled_from([0.1, 0.5, 0.75]))
def test_pairs_are_those_of_the_largest_iou_that_is_left(
    one: Detections, other: Detections, least_iou: float
) -> None:
    overlap = iou_matrix(one.xyxy, other.xyxy)
    overlap[one.class_id[:, None] != other.class_id[None, :]] = 0.0
    expected = []
    while overlap.size and overlap.max() >= least_iou:
        row, column = np.unravel_index(int(overlap.argmax()), overlap.shape)
        expected.append((int(row), int(column)))
        overlap[row, :] = overlap[:, column] = 0.0
    rows, columns = pair_boxes(one, other, least_iou)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == expected
