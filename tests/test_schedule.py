"""A job on a cluster, simulated: known schedules, and bounds that no schedule can break."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.config import MOST_ATTEMPTS
from pipeline.measure.schedule import ClipWork, Cluster, simulate

seconds = st.floats(0.0, 100.0)
clip_works = st.builds(
    ClipWork,
    plan_seconds=seconds,
    segment_seconds=st.lists(st.floats(0.1, 100.0), min_size=1, max_size=12).map(tuple),
    join_seconds=seconds,
)
jobs = st.lists(clip_works, min_size=1, max_size=8)
clusters = st.builds(
    Cluster,
    num_nodes=st.integers(1, 5),
    actors_per_node=st.integers(1, 4),
    num_drivers=st.integers(1, 4),
    dispatch_seconds=st.sampled_from([0.0, 0.5]),
    record_seconds=st.sampled_from([0.0, 0.5]),
    start_seconds=st.sampled_from([0.0, 7.0]),
)


def actors(number: int, **costs: float) -> Cluster:
    return Cluster(num_nodes=1, actors_per_node=number, **costs)  # type: ignore[arg-type]


def segments(*taken: float) -> ClipWork:
    return ClipWork(0.0, taken, 0.0)


def test_segments_go_in_order_to_whichever_actor_is_idle() -> None:
    # The first actor takes 3 and then 4, the second 2, 2 and 1.
    assert simulate([segments(3, 2, 2, 4, 1)], actors(2)).wall_seconds == 7
    assert simulate([segments(3, 2, 2, 4, 1)], actors(1)).wall_seconds == 12
    assert simulate([segments(3, 2, 2, 4, 1)], actors(5)).wall_seconds == 4


def test_a_driver_plans_and_joins_one_clip_after_the_other() -> None:
    clips = [ClipWork(2.0, (10.0, 10.0), 3.0)] * 2
    alone = simulate(clips, actors(2))
    assert alone.wall_seconds == 30
    assert alone.driver_seconds == 10
    assert alone.driver_load == pytest.approx(1 / 3)
    assert alone.utilisation == pytest.approx(2 / 3)
    assert simulate(clips, actors(4, num_drivers=2)).wall_seconds == 15


def test_drivers_share_the_actors() -> None:
    clips = [segments(10.0), segments(10.0), segments(10.0)]
    assert simulate(clips, actors(2, num_drivers=3)).wall_seconds == 20


def test_handing_out_and_recording_take_the_driver_s_time_one_after_the_other() -> None:
    # Begun after 1, 2 and 3 seconds, done 10 later, each recorded in 2 more.
    schedule = simulate([segments(10, 10, 10)], actors(3, dispatch_seconds=1, record_seconds=2))
    assert schedule.wall_seconds == 1 + 10 + 3 * 2
    assert schedule.driver_seconds == 9


def test_actors_need_time_to_start() -> None:
    schedule = simulate([segments(10.0)], actors(1, start_seconds=5.0))
    assert schedule.wall_seconds == 15
    assert schedule.utilisation == pytest.approx(2 / 3)


def test_what_a_lost_node_was_at_is_done_again() -> None:
    cluster = Cluster(
        num_nodes=10, actors_per_node=4, losses_per_node_hour=2.0, return_seconds=60.0
    )
    clip = segments(*[100.0] * 2000)
    schedule = simulate([clip], cluster, seed=1)
    assert schedule.num_lost > 0
    assert schedule.lost_seconds > 0
    assert schedule.num_given_up == 0
    assert schedule.work_seconds == pytest.approx(sum(clip.segment_seconds))
    assert schedule.wall_seconds > simulate([clip], actors(40)).wall_seconds
    assert simulate([clip], cluster, seed=1) == schedule
    assert simulate([clip], cluster, seed=2) != schedule


def test_a_segment_that_goes_down_with_node_after_node_is_given_up() -> None:
    cluster = Cluster(num_nodes=1, actors_per_node=1, losses_per_node_hour=60.0)
    schedule = simulate([segments(100_000.0)], cluster)
    assert schedule.num_given_up == 1
    assert schedule.num_lost == MOST_ATTEMPTS
    assert schedule.work_seconds == 0


@settings(deadline=None)
@given(clips=jobs, cluster=clusters)
def test_no_job_is_faster_than_its_work_and_its_longest_clip(
    clips: list[ClipWork], cluster: Cluster
) -> None:
    schedule = simulate(clips, cluster)
    work = math.fsum(sum(clip.segment_seconds) for clip in clips)
    in_turn = math.fsum(clip.least_seconds for clip in clips)
    for bound in (
        work / cluster.num_actors,
        max(clip.least_seconds for clip in clips),
        in_turn / cluster.num_drivers,
        schedule.driver_seconds / cluster.num_drivers,
    ):
        assert schedule.wall_seconds >= bound * (1 - 1e-9)
    assert schedule.work_seconds == pytest.approx(work)
    assert schedule.utilisation <= 1 + 1e-9
    assert schedule.driver_load <= 1 + 1e-9


@settings(deadline=None)
@given(taken=st.lists(st.floats(0.1, 100.0), min_size=1, max_size=40), number=st.integers(1, 12))
def test_the_segments_of_a_clip_take_at_most_the_longest_more_than_the_work_shared_out(
    taken: list[float], number: int
) -> None:
    wall_seconds = simulate([segments(*taken)], actors(number)).wall_seconds
    shared, longest = sum(taken) / number, max(taken)
    assert max(shared, longest) * (1 - 1e-9) <= wall_seconds
    # Graham's bound for list scheduling.
    assert wall_seconds <= (shared + longest * (1 - 1 / number)) * (1 + 1e-9)


@settings(deadline=None)
@given(clips=jobs, cluster=clusters, seed=st.integers(0, 9))
def test_with_nodes_that_are_lost_every_segment_is_done_or_given_up(
    clips: list[ClipWork], cluster: Cluster, seed: int
) -> None:
    lossy = Cluster(
        num_nodes=cluster.num_nodes,
        actors_per_node=cluster.actors_per_node,
        num_drivers=cluster.num_drivers,
        losses_per_node_hour=30.0,
        return_seconds=5.0,
    )
    schedule = simulate(clips, lossy, seed)
    work = math.fsum(sum(clip.segment_seconds) for clip in clips)
    assert schedule.num_given_up <= schedule.num_lost
    assert schedule.num_given_up or schedule.work_seconds == pytest.approx(work)
    available = schedule.wall_seconds * lossy.num_actors
    assert schedule.work_seconds + schedule.lost_seconds <= available * (1 + 1e-9)
