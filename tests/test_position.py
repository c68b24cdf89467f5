"""Where the work is, seen from another process."""

from __future__ import annotations

import multiprocessing
import time
import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.position import Position, Step
from pipeline.frames.stats import RunStats


def encode_frame_412(position: Position) -> None:
    position.encoding.frame_index = 412
    position.encoding.enter(Step.ENCODE)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_another_process_sees_where_the_work_was_after_it_is_gone(method: str) -> None:
    context = multiprocessing.get_context(method)
    position = Position.shared(context)
    before = position.heartbeat
    worker = context.Process(target=encode_frame_412, args=(position,))  # type: ignore[attr-defined]
    worker.start()
    worker.join(60)
    assert worker.exitcode == 0
    assert (position.encoding.step, position.encoding.frame_index) == (Step.ENCODE, 412)
    assert position.heartbeat > before
    assert str(position) == "encoding thread at encode of frame 412"


@given(
    st.lists(st.tuples(st.booleans(), st.sampled_from(Step), st.integers(0, 2**62)), max_size=20)
)
def test_each_thread_has_a_place_of_its_own_and_every_move_is_a_heartbeat(
    moves: list[tuple[bool, Step, int]],
) -> None:
    position = Position()
    last = {False: (Step.PREPARE, 0), True: (Step.PREPARE, 0)}
    for encoding, step, frame_index in moves:
        before = position.heartbeat
        place = position.encoding if encoding else position.decoding
        place.frame_index = frame_index
        place.enter(step)
        assert position.heartbeat == before + 1
        last[encoding] = (step, frame_index)
    for encoding, place in ((False, position.decoding), (True, position.encoding)):
        assert (place.step, place.frame_index) == last[encoding]
    working = [last[thread] for thread in (True, False) if last[thread][0].works_on_frame]
    found = position.working
    assert (found is None) == (not working)
    assert found is None or (found.step, found.frame_index) == working[0]


def test_waits_are_not_work_and_name_the_frame_they_are_for() -> None:
    position = Position()
    assert str(position) == "while preparing"
    position.encoding.frame_index = 7
    position.encoding.enter(Step.WAIT_INFERENCE)
    position.decoding.enter(Step.DONE)
    assert position.working is None
    assert str(position) == "encoding thread at wait inference of frame 7"
    position.encoding.enter(Step.JOIN)
    assert str(position) == "encoding thread at join"
    position.encoding.enter(Step.WAIT_CLUSTER)
    assert position.working is None
    assert str(position) == "encoding thread at wait cluster"


def test_the_clocks_of_the_steps_tell_the_place() -> None:
    stats = RunStats()
    with stats.producer.decode, stats.consumer.write:
        assert stats.producer.place.step == Step.DECODE
        assert stats.consumer.place.step == Step.WRITE


def test_telling_the_place_costs_a_frame_next_to_nothing() -> None:
    position = Position.shared(multiprocessing.get_context())
    seconds = timeit.repeat(
        lambda: position.encoding.enter(8), number=10_000, repeat=20, timer=time.thread_time
    )
    assert min(seconds) / 10_000 < 2e-6
