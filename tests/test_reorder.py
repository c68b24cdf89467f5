"""Completion order -> frame order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.frames.reorder import ReorderBuffer

permutations = st.integers(0, 60).flatmap(lambda n: st.permutations(range(n)))


def longest_run_from_zero(indices: set[int]) -> list[int]:
    run: list[int] = []
    while len(run) in indices:
        run.append(len(run))
    return run


@given(permutations)
def test_any_completion_order_comes_out_in_frame_order(completed: list[int]) -> None:
    buffer: ReorderBuffer[str] = ReorderBuffer()
    out = [item for index in completed for item in buffer.push(index, f"frame {index}")]
    assert out == [f"frame {index}" for index in range(len(completed))]
    assert len(buffer) == 0
    assert buffer.next_index == len(completed)


@given(permutations)
def test_after_every_completion_exactly_what_is_in_turn_has_come_out(completed: list[int]) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    pushed: set[int] = set()
    out: list[int] = []
    for index in completed:
        pushed.add(index)
        out += buffer.push(index, index)
        assert out == longest_run_from_zero(pushed)
        assert len(buffer) == len(pushed) - len(out)
        assert buffer.next_index == len(out)


@given(permutations.filter(bool), st.data())
def test_an_index_that_comes_twice_is_refused_and_changes_nothing(
    completed: list[int], data: st.DataObject
) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    cut = data.draw(st.integers(1, len(completed)))
    out = [item for index in completed[:cut] for item in buffer.push(index, index)]
    again = data.draw(st.sampled_from(completed[:cut]))
    with pytest.raises(ValueError, match=f"{again} came twice"):
        buffer.push(again, -1)
    out += [item for index in completed[cut:] for item in buffer.push(index, index)]
    assert out == list(range(len(completed)))


def test_a_negative_index_is_refused() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    with pytest.raises(ValueError, match="-1"):
        buffer.push(-1, 0)


@given(st.lists(st.integers(0, 7), max_size=300))
def test_it_holds_no_more_than_the_completions_are_spread(delays: list[int]) -> None:
    completed = sorted(range(len(delays)), key=lambda index: (index + delays[index], index))
    buffer: ReorderBuffer[int] = ReorderBuffer()
    for index in completed:
        for _ in buffer.push(index, index):
            pass
        assert len(buffer) <= max(delays)


@given(st.integers(0, 50))
def test_everything_waits_for_a_first_frame_that_is_late(late_by: int) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    for index in range(1, late_by + 1):
        assert list(buffer.push(index, index)) == []
        assert len(buffer) == index
    assert list(buffer.push(0, 0)) == list(range(late_by + 1))


def test_items_that_nobody_took_yet_are_not_lost() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    list(buffer.push(1, 1))
    assert next(buffer.push(0, 0)) == 0
    assert list(buffer.push(2, 2)) == [1, 2]
