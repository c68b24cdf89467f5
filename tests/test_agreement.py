"""Boxes of two ways to detect: which agree, and what a sample says of all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.agreement import Agreement, Share, agreement
from pipeline.core.boxes import Detections


def boxes(*rows: tuple[int, float, tuple[float, float, float, float]]) -> Detections:
    """(class, confidence, corners) of one frame."""
    return Detections(
        np.array([row[2] for row in rows], np.float32).reshape(-1, 4),
        np.array([row[1] for row in rows], np.float32),
        np.array([row[0] for row in rows], np.int64),
    )


BOX = (10.0, 10.0, 50.0, 50.0)


@pytest.mark.parametrize(
    ("ours", "share"),
    [
        (boxes((1, 0.9, BOX)), 1.0),
        (boxes((1, 0.6, (10.5, 10.0, 50.0, 50.0))), 1.0),
        (boxes((2, 0.9, BOX)), 0.0),
        (boxes((1, 0.9, (15.0, 10.0, 55.0, 50.0))), 0.0),
        (boxes((1, 0.9, BOX), (1, 0.8, (60.0, 60.0, 80.0, 80.0))), 0.5),
        (boxes((1, 0.9, BOX), (1, 0.3, (60.0, 60.0, 80.0, 80.0))), 1.0),
        (boxes(), 1.0),
    ],
)
def test_boxes_agree_by_class_and_overlap_both_ways(ours: Detections, share: float) -> None:
    theirs = boxes((1, 0.9, BOX)) if len(ours) else boxes()
    assert agreement([ours], [theirs]).share == pytest.approx(share)
    assert agreement([theirs], [ours]).share == pytest.approx(share)
    assert agreement([ours], [theirs]).same == (share == 1.0)


def test_the_least_overlap_and_confidence_can_be_chosen() -> None:
    ours, theirs = boxes((1, 0.3, (15.0, 10.0, 55.0, 50.0))), boxes((1, 0.9, BOX))
    assert agreement([ours], [theirs], least_iou=0.75).theirs == Share(1, 1)
    assert agreement([ours], [theirs], least_iou=0.75).ours == Share(0, 0)
    assert agreement([ours], [theirs], least_iou=0.75, sure_confidence=0.2).ours == Share(1, 1)


def test_agreements_of_frames_add_up() -> None:
    one, nothing = boxes((1, 0.9, BOX)), boxes()
    both = agreement([one, nothing], [one, one])
    assert both == agreement([one], [one]) + agreement([nothing], [one])
    assert both == Agreement(ours=Share(1, 1), theirs=Share(1, 2))
    assert both.worse == both.theirs
    assert (both.share, both.num_boxes) == (0.5, 1)


@pytest.mark.parametrize(
    ("partnered", "boxes", "interval"),
    [  # Of scipy.stats.binomtest(...).proportion_ci(method="wilson").
        (95, 100, (0.888250, 0.978456)),
        (10, 10, (0.722467, 1.0)),
        (0, 10, (0.0, 0.277533)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_the_interval_is_wilsons(partnered: int, boxes: int, interval: tuple[float, float]) -> None:
    assert Share(partnered, boxes).interval == pytest.approx(interval, abs=1e-6)


@given(st.integers(0, 10_000), st.integers(0, 10_000))
def test_an_interval_contains_its_share_and_shrinks_with_more_boxes(a: int, b: int) -> None:
    share = Share(min(a, b), max(a, b))
    low, high = share.interval
    assert 0.0 <= low <= share.value <= high <= 1.0
    more = Share(10 * share.num_partnered, 10 * share.num_boxes)
    assert more.interval[1] - more.interval[0] <= high - low


@pytest.mark.parametrize("boxes", [4, 10, 14, 1000])
def test_boxes_that_all_agree_are_never_below_what_is_asked_for(boxes: int) -> None:
    every = Share(boxes, boxes)
    assert not Agreement(ours=every, theirs=every).is_below(1.0)


def test_a_sample_shows_a_share_or_is_too_small_for_it() -> None:
    good, bad, short = Share(999, 1000), Share(800, 1000), Share(9, 10)
    for share, verdict in ((good, (False, False)), (bad, (True, False)), (short, (False, True))):
        found = Agreement(ours=share, theirs=good)
        assert (found.is_below(0.97), found.is_undecided(0.97)) == verdict
