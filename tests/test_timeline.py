"""The rules of time: from 0, in order, in step, and every time stamp that is good left alone."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import chain, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.media.jumps import GAP_SECONDS, LEAP_SECONDS, Shift, Track, shifts_of
from pipeline.media.timeline import (
    MOST_LEAD_SECONDS,
    MOST_TICKS,
    Clock,
    FrameTimes,
    PacketClock,
    Span,
    Timeline,
    has_other_clock,
    in_order,
    lasts_as_long,
    origin_of,
    result_time_base,
    supported_rate,
)

MS = Fraction(1, 1000)
TS = Fraction(1, 90_000)


def timeline_of(time_base: Fraction = MS, origin: int = 0, **values: object) -> Timeline:
    timeline = Timeline(Clock(time_base, origin), time_base, Fraction(25), 10)
    return replace(timeline, **values)  # type: ignore[arg-type]


# Packets that are copied


def placed(dts: list[int], clock: Clock | None = None) -> list[int | None]:
    times = PacketClock(clock or Clock(MS))
    found = [times.place(time, time, 20) for time in dts]
    return [None if place is None else place[1] for place in found]


def test_a_packet_whose_time_repeats_moves_by_a_tick_and_the_others_stay() -> None:
    assert placed([0, 20, 20, 40, 60]) == [0, 20, 21, 40, 60]
    assert placed([0, 20, 13, 40, 60]) == [0, 20, 21, 40, 60]
    assert placed([0, 40, 40, 40, 60]) == [0, 40, 41, 42, 60]


@given(st.lists(st.integers(0, 10_000), min_size=1, max_size=60))
def test_times_of_packets_always_grow_and_stay_where_they_can(dts: list[int]) -> None:
    found = placed(dts)
    assert all(a is not None and b is not None and a < b for a, b in pairwise(found))
    for index, time in enumerate(dts):
        before = found[index - 1] if index else None
        if before is None or time > before:
            assert found[index] == time


def test_sound_long_before_0_is_not_carried_and_what_a_decoder_starts_with_is() -> None:
    clock = Clock(MS, origin=1000)
    assert placed([0, 500, 900, 979, 1000, 1020], clock) == [None, None, -100, -21, 0, 20]


def test_a_packet_without_a_length_lasts_as_long_as_the_one_before() -> None:
    times = PacketClock(Clock(MS))
    assert [times.place(time, time, 0) for time in (0, 21, 43)] == [
        (0, 0, 0),
        (21, 21, 21),
        (43, 43, 22),
    ]


# Joined recordings


def track_of(
    parts: list[tuple[int, int, int]], *, step: int, at: int = 0, leap: int = GAP_SECONDS
) -> Track:
    """Parts are (first dts, number of packets, position in the file of its first packet), in ms."""
    track = Track(MS, leap)
    for start, count, position in parts:
        for index in range(count):
            track.add(position + at + 100 * index, start + step * index, step)
            if track.may_begin(start + step * index):
                track.begin(start + step * index)
    return track


def test_at_a_join_all_streams_are_shifted_by_the_same_time() -> None:
    # 4 s of picture and 4.5 s of sound, then the same again from 1 s on.
    picture = track_of([(0, 100, 0), (1000, 100, 50_000)], step=40)
    sound = track_of([(0, 225, 1), (1000, 225, 50_001)], step=20)
    shifts = shifts_of({0: picture, 1: sound})
    assert shifts == {0: (Shift(100, 3500),), 1: (Shift(225, 3500),)}


@given(
    lengths=st.tuples(st.integers(2, 60), st.integers(2, 60)),
    second=st.integers(-100_000, 900),
)
def test_no_stream_of_a_second_recording_begins_before_it_ended_in_the_first(
    lengths: tuple[int, int], second: int
) -> None:
    frames, sounds = (50 + length for length in lengths)
    picture = track_of([(0, frames, 0), (second, 50, 50_000)], step=40)
    sound = track_of([(0, 2 * sounds, 1), (second, 100, 50_001)], step=20)
    shifts = shifts_of({0: picture, 1: sound})
    [shift] = {found.ticks for part in shifts.values() for found in part}
    assert second + shift == max(40 * frames, 40 * sounds)


def test_a_recording_that_begins_much_later_is_joined_to_the_one_before() -> None:
    picture = track_of([(0, 100, 0), (60_000, 100, 50_000)], step=40)
    sound = track_of([(0, 200, 1), (60_000, 200, 50_001)], step=20)
    assert shifts_of({0: picture, 1: sound})[1] == (Shift(200, -56_000),)


def test_a_gap_of_one_stream_is_kept_while_another_goes_on() -> None:
    picture = track_of([(0, 100, 0), (60_000, 100, 400_000)], step=40)
    sound = track_of([(0, 5000, 1)], step=20)
    assert shifts_of({0: picture, 1: sound}) == {0: (), 1: ()}


def test_a_single_packet_out_of_place_is_no_join() -> None:
    track = Track(MS, GAP_SECONDS)
    for index, dts in enumerate([0, 40, 80, 5000, 160, 200, 240]):
        track.add(index, dts, 40)
    assert track.jumps() == []
    # It is brought to where it is due, or all that follow would be squeezed.
    assert shifts_of({0: track})[0] == (Shift(3, -4880), Shift(4, 0))
    track = Track(MS, GAP_SECONDS)
    for index, dts in enumerate([5000, 5040, 80, 5120, 5160]):
        track.add(index, dts, 40)
    assert track.jumps() == []


def test_sound_that_falls_back_a_little_by_itself_comes_back_in_step() -> None:
    picture = track_of([(0, 500, 0)], step=40)
    sound = track_of([(0, 200, 1), (3000, 300, 20_001)], step=20)
    assert shifts_of({0: picture, 1: sound})[1] == ()


def test_elsewhere_than_in_broadcast_only_a_leap_of_days_is_closed() -> None:
    hour, month = 3_600_000, 30 * 24 * 3_600_000
    gap = track_of([(0, 50, 0), (hour, 50, 50_000)], step=40, leap=LEAP_SECONDS)
    leap = track_of([(0, 50, 0), (month, 50, 50_000)], step=40, leap=LEAP_SECONDS)
    assert shifts_of({0: gap})[0] == ()
    assert shifts_of({0: leap})[0] == (Shift(50, 2000 - month),)


def test_subtitles_are_shifted_from_the_join_on() -> None:
    picture = track_of([(0, 100, 0), (1000, 100, 50_000)], step=40)
    subtitles = Track(MS, GAP_SECONDS, sparse=True)
    for position, time in ((10, 500), (60_000, 1500)):
        subtitles.add(position, time, 300)
    assert shifts_of({0: picture, 2: subtitles})[2] == (Shift(1, 3000),)


def test_ticks_of_the_file_are_found_again_behind_a_join() -> None:
    clock = Clock(MS, 0, (Shift(100, 3500), Shift(200, 9000)))
    timeline = timeline_of(video=clock, part_starts=(4500, 10_000))
    assert [timeline.source_pts(pts) for pts in (0, 4460, 4500, 9960, 10_000)] == [
        0,
        4460,
        1000,
        6460,
        1000,
    ]
    assert [clock.shift(ordinal) for ordinal in (0, 99, 100, 199, 200, 999)] == [
        0,
        0,
        3500,
        3500,
        9000,
        9000,
    ]


# Where time begins


def span(start: float, length: float = 10) -> Span:
    return Span(Fraction(start), Fraction(start) + Fraction(length))


@given(
    start=st.integers(-(2**33), 2**33),
    leads=st.lists(st.integers(-5000, 5000), max_size=4),
)
def test_time_begins_with_the_first_of_picture_and_sound(start: int, leads: list[int]) -> None:
    video = span(start * MS)  # type: ignore[arg-type]
    sounds = [span((start + lead) * MS) for lead in leads]  # type: ignore[arg-type]
    assert origin_of(video, sounds) == min(s.start for s in [video, *sounds])


def test_there_is_no_blank_lead_in_of_minutes() -> None:
    assert origin_of(span(300), [span(0, 400)]) == 300
    assert origin_of(span(300), [span(300 - MOST_LEAD_SECONDS, 400)]) == 290


def test_a_sound_on_another_clock_is_told_from_one_that_begins_late() -> None:
    assert has_other_clock(span(0), span(1_700_000_000))
    assert has_other_clock(span(1_700_000_000), span(0))
    assert not has_other_clock(span(0), span(9))
    assert not has_other_clock(span(0), span(40))
    assert lasts_as_long(span(0, 10), span(5, 10.5))
    assert not lasts_as_long(span(0, 10), span(5, 60))


# Frames


@given(st.lists(st.one_of(st.none(), st.integers(-1000, 1000)), max_size=50))
def test_times_of_frames_always_grow(pts: list[int | None]) -> None:
    times = FrameTimes(timeline_of())
    found = [times.place(value) for value in pts]
    assert all(a < b for (a, _), (b, _) in pairwise(found))
    for value, (place, mended) in zip(pts, found, strict=True):
        assert mended == (value != place)


@given(
    count=st.integers(1, 60),
    depth=st.integers(1, 4),
    seed=st.randoms(use_true_random=False),
)
def test_times_that_are_those_of_decoding_are_sorted(count: int, depth: int, seed: object) -> None:
    groups = [list(range(i, min(i + depth + 1, count))) for i in range(0, count, depth + 1)]
    for group in groups:
        seed.shuffle(group)  # type: ignore[attr-defined]
    timed = [(pts, f"image {n}") for n, pts in enumerate(chain.from_iterable(groups))]
    assert list(in_order(timed, depth)) == [(n, f"image {n}") for n in range(count)]


@pytest.mark.parametrize(
    "rate",
    [Fraction(n) for n in (1, 5, 12, 24, 25, 30, 50, 60, 120)]
    + [Fraction(n, 1001) for n in (24_000, 30_000, 60_000)],
    ids=str,
)
@pytest.mark.parametrize("claimed", [None, Fraction(1000), Fraction(600)], ids=str)
def test_a_rate_is_recognised_though_a_clock_of_milliseconds_rounds_it(
    rate: Fraction, claimed: Fraction | None
) -> None:
    pts = [round(index / rate / MS) for index in range(1000)]
    assert supported_rate(pts, MS, claimed) == rate


def test_a_claimed_rate_that_times_support_is_taken() -> None:
    uneven = [0, 40, 80, 120, 160, 2000, 2040, 2080]
    assert supported_rate(uneven, MS, Fraction(25)) == 25
    assert supported_rate([0], MS, Fraction(50)) == 50
    assert supported_rate([], MS, None) is None


@given(
    pts=st.lists(st.integers(1, 10**13), min_size=1, max_size=30, unique=True),
    denominator=st.sampled_from([1, 25, 600, 1000, 90_000, 10**6, 10**7, 10**9]),
)
def test_the_time_base_of_a_result_keeps_the_order_in_what_mp4_can_hold(
    pts: list[int], denominator: int
) -> None:
    times, source = sorted(pts), Fraction(1, denominator)
    base = result_time_base(times, source)
    assert base.denominator <= 10**6
    gaps = [(b - a) * source for a, b in pairwise(times)]
    if not gaps or max(gaps) / Fraction(1, 1000) > MOST_TICKS:
        return
    assert max(gaps) / base <= MOST_TICKS
    if min(gaps) >= Fraction(1, 1000) and min(gaps) >= base:
        ticks = [round(time * source / base) for time in times]
        assert all(a < b for a, b in pairwise(ticks))


def test_an_ordinary_time_base_stays() -> None:
    for base in (Fraction(1, 25), Fraction(1001, 30_000), TS, MS, Fraction(1, 12_800)):
        assert result_time_base([0, 1, 2, 3], base) == base
    nanoseconds = Fraction(1, 10**9)
    assert result_time_base([0, 40_000_000, 3_000_000_000], nanoseconds) == TS
    assert result_time_base([0, 2_000, 4_000], nanoseconds) == Fraction(1, 10**6)


def test_packets_that_are_decoded_keep_times_that_repeat() -> None:
    times = PacketClock(Clock(MS), must_grow=False)
    placed = [times.place(dts, dts, 1) for dts in (0, 1, 2, 3, 3, 4, 5)]
    assert [place and place[1] for place in placed] == [0, 1, 2, 3, 3, 4, 5]
