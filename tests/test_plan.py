"""Segments: every frame in exactly one, each beginning where a decoder can begin."""

from __future__ import annotations

import itertools
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.cut import cut_clip, cut_synthetic, segments_of
from pipeline.media.frame import WHOLE, Segment
from pipeline.media.scan import scan_clip
from pipeline.media.timeline import Packet
from tests.conftest import gray, write_clip

TIME_BASE = Fraction(1, 1000)
RATE = Fraction(25)


def packets(pts: list[int], keys: set[int]) -> list[Packet]:
    return [Packet(value, 40 * i, value in keys) for i, value in enumerate(pts)]


def of_length(num_frames: int, key_every: int) -> list[Packet]:
    pts = [40 * i for i in range(num_frames)]
    return packets(pts, set(pts[::key_every]))


def assert_a_partition(segments: tuple[Segment, ...]) -> None:
    assert [segment.number for segment in segments] == list(range(len(segments)))
    assert segments[0].start_pts is None
    assert segments[-1].end_pts is None
    for before, after in itertools.pairwise(segments):
        assert before.end_pts == after.start_pts is not None
    starts = [segment.start_pts for segment in segments[1:]]
    assert starts == sorted(set(starts))  # type: ignore[type-var]


@given(
    num_frames=st.integers(1, 400),
    key_every=st.integers(1, 90),
    seconds=st.floats(0.02, 20.0),
)
def test_segments_lie_end_to_end_and_begin_at_key_frames(
    num_frames: int, key_every: int, seconds: float
) -> None:
    clip = of_length(num_frames, key_every)
    segments = segments_of(clip, TIME_BASE, RATE, seconds)
    assert_a_partition(segments)
    keys = {packet.pts for packet in clip if packet.is_keyframe}
    for segment in segments[1:]:
        assert segment.start_pts in keys
        # The key frame before it: what the first frames may refer to is then decoded too.
        assert segment.seek_pts in keys
        assert segment.seek_pts is not None
        assert segment.start_pts is not None
        assert segment.seek_pts < segment.start_pts


def test_segments_are_as_long_as_asked_and_the_last_is_no_scrap() -> None:
    segments = segments_of(of_length(25 * 100, 25), TIME_BASE, RATE, 30.0)
    assert [segment.start_pts for segment in segments] == [None, 30_000, 60_000]


def test_without_key_frames_in_between_there_is_one_segment() -> None:
    assert segments_of(of_length(5000, 5000), TIME_BASE, RATE, 10.0) == (WHOLE,)


def test_leading_pictures_stay_with_the_segment_of_their_time() -> None:
    # Stored after the key frame of 200, shown before it.
    pts = [0, 80, 40, 200, 120, 160, 280, 240]
    segments = segments_of(packets(pts, {0, 200}), TIME_BASE, RATE, 0.1)
    assert segments == (Segment(0, None, 200), Segment(1, 200, None, seek_pts=0))


@pytest.mark.parametrize(
    "damage",
    [
        lambda clip: [*clip[:500], Packet(None, None, False), *clip[501:]],
        lambda clip: [*clip[:500], *clip],
        lambda clip: [*clip[:500], clip[499], *clip[500:]],
    ],
    ids=["missing", "begins anew", "repeated"],
)
def test_with_unusable_time_stamps_segments_are_found_by_decoding_from_the_start(
    damage: object,
) -> None:
    clip = damage(of_length(25 * 60, 25))  # type: ignore[operator]
    segments = segments_of(clip, TIME_BASE, RATE, 10.0)
    assert_a_partition(segments)
    assert len(segments) > 3
    assert {segment.seek_pts for segment in segments} == {None}


@given(num_frames=st.integers(1, 5000), seconds=st.floats(0.01, 60.0))
def test_the_synthetic_clip_is_cut_by_its_frame_numbers(num_frames: int, seconds: float) -> None:
    segments = cut_synthetic(num_frames, RATE, seconds)
    assert_a_partition(segments)
    assert all((s.start_pts or 0) < num_frames for s in segments)


def test_a_short_clip_is_one_segment(tmp_path: Path) -> None:
    images = [gray(i) for i in range(50)]
    scan = scan_clip(write_clip(tmp_path / "clip.mp4", images, options={"g": "5"}))
    assert cut_clip(scan, 60.0) == (WHOLE,)
    assert cut_clip(scan, 1.5) == (WHOLE,)
    assert len(cut_clip(scan, 0.4)) > 1
    assert cut_clip(scan, 0.4, num_frames=15) == (WHOLE,)


def test_of_a_long_clip_no_more_is_read_than_its_first_frames_need(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "clip.mp4", [gray(i % 200) for i in range(500)])
    assert 20 <= len(scan_clip(clip, num_frames=20).packets) < 100
    assert len(scan_clip(clip).packets) == 500


def test_a_real_clip_is_cut_at_its_key_frames(tmp_path: Path) -> None:
    clip = write_clip(
        tmp_path / "clip.mp4",
        [gray(i) for i in range(100)],
        options={"g": "10", "sc_threshold": "0"},
    )
    scan = scan_clip(clip)
    segments = cut_clip(scan, 1.0)
    tick = round(Fraction(1, 25) / scan.timeline.time_base)
    starts = [(s.start_pts, s.seek_pts) for s in segments[1:]]
    assert starts == [(30 * tick, 20 * tick), (60 * tick, 50 * tick)]
